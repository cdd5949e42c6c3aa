"""Commands for who may call: tenants, plans, keys, people and sessions."""

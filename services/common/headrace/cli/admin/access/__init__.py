"""Commands for who may call: tenants, plans and keys."""

"""Tenants, plans and keys: three services, and what their fields may hold."""

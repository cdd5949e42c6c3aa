"""Webhooks: events are signed and sent to the endpoints of tenants, until they are received."""

"""Webhooks in the database: endpoints, events, and what became of each delivery."""

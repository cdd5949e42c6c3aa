"""Backups: one archive of the database and of what the broker stores, and restoring it."""

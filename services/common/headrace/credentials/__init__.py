"""Secrets, certificates and keys of services, in files that are read again when they change."""

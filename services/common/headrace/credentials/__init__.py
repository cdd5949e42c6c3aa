"""Secrets of services: files that only their owner may read."""

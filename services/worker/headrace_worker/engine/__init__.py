"""Engines: `core` is ours, `backends` runs others; only this package imports torch."""

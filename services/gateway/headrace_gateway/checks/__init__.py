"""Validation: a request to one that needs no further check, or an error that names the field."""

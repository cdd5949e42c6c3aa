"""headrace.admin.v1: a module for each service."""

"""Envoy's and NATS's files and command lines."""

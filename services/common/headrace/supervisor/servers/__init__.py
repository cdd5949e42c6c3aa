"""Configuration files and command lines of Envoy and nats-server."""

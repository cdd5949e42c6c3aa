"""Public APIs over gRPC and HTTP. Each converts its own bodies; none knows another."""

"""gRPC for all services and the client: servers, channels, addresses, errors."""

"""gRPC as every service uses it: servers, and errors as google.rpc.Status."""

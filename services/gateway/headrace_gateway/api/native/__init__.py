"""The native API: headrace.v1 over gRPC, and the same as strict JSON over REST."""

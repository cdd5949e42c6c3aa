"""The gateway: OpenAI REST and typed gRPC in, requests on the bus, streams of tokens out."""

"""OpenAI's API: bodies in, JSON and server-sent events out, as OpenAI's clients expect."""

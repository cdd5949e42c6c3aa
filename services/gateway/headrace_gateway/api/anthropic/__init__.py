"""Anthropic's Messages API: bodies in, JSON and server-sent events out, as its clients expect."""

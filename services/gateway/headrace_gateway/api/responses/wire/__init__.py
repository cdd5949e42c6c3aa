"""Responses as OpenAI's clients send and read them: bodies, items, events. Pure."""

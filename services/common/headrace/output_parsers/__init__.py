"""Which parsers of tool calls and reasoning there are, and which of them a model needs."""

"""Finds reasoning and tool calls in the output of a model; as other families write them."""

"""OpenAI's Responses and Conversations: the calls of their paths."""

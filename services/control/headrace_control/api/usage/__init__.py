"""Usage: OpenAI's API of an organization, and that of headrace.admin.v1."""

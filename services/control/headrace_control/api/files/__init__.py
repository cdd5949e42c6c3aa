"""headrace.v1.FileService: OpenAI's files."""

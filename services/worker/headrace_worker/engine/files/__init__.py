"""A model's files: where they are, and what they configure."""

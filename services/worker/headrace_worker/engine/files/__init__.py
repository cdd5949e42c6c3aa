"""A model's files: where they are, and what they say of generating with it."""

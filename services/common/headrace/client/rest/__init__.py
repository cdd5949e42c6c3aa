"""Responses, files and batches: what a mesh serves over REST alone, in OpenAI's form."""

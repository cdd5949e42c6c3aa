"""Commands that start, stop and drain a mesh."""

"""Commands that send requests to a mesh."""

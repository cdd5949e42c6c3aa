"""Commands that send requests."""

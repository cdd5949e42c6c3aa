"""Commands that look into a mesh or break it."""

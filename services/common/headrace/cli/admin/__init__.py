"""Commands that inspect a mesh or test its resilience."""

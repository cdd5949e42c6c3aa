"""Load on a running mesh, through its public door, and what came of it."""

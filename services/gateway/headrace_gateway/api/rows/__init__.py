"""Rows of batches, for which control calls."""

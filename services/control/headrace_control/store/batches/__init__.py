"""Batches, and their rows that are finished."""

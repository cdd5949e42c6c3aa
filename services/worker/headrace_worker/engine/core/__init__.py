"""Continuous batching: slots, and when sequences end."""

"""Gateways, as control sends them the rows of batches."""

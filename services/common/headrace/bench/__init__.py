"""A load generator for a running mesh, and the figures of its runs."""

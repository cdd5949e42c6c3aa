"""Caches of answers and of vectors: exact, bounded, of one tenant each, for callers that ask."""

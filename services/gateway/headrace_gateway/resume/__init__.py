"""Requests that a second call reaches: resumed streams, idempotency, background, takeovers."""

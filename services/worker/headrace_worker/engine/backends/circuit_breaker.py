"""A circuit breaker: stop sending requests to a server that keeps failing. Pure."""

from __future__ import annotations


class CircuitBreaker:
    """Opens after so many failures in a row; a success closes it.

    While it is open, no request is sent. Its owner probes the server now and then and records the
    result, so that no request is spent on finding out.
    """

    def __init__(self, *, failures: int) -> None:
        self._limit = failures
        self._failures = 0
        self._fact = ""

    @property
    def is_open(self) -> bool:
        return self._failures >= self._limit

    @property
    def unavailable_reason(self) -> str:
        """Why no request is sent; empty while it is closed."""
        if not self.is_open:
            return ""
        return f"{self._failures} failures in a row; the last: {self._fact}"

    def record_failure(self, fact: str) -> bool:
        """Record a failure; return True if it opens the breaker."""
        was_open = self.is_open
        self._failures += 1
        self._fact = fact
        return self.is_open and not was_open

    def record_success(self) -> None:
        self._failures = 0

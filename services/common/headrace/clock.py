"""The clock of code that acts; pure code takes `now_s` as an argument instead."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Return the time for waits and leases, which changes of the wall clock do not affect."""
        ...

    def unix_s(self) -> float:
        """Return the time for what other processes or people read."""
        ...


class SystemClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time()

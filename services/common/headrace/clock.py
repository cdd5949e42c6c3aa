"""Time as an argument: rims hold a Clock, pure rooms are told `now_s`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """For waits and leases; unaffected by changes of the wall clock."""
        ...

    def unix_s(self) -> float:
        """For what crosses processes or is shown to people."""
        ...


class SystemClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time()

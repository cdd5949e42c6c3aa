"""How long a process that died waits before its next start. Pure.

died after    deaths in a row    next start
0.1 s         1                  in 0.2 s
0.1 s         2                  in 0.4 s
0.1 s         7                  in 10 s, the longest
12 s          1                  in 0.2 s: a run of 10 s counts as steady
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.2
LONGEST_S = 10.0
STEADY_S = 10.0
"""A run of this length ends the row of deaths before it."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A wait that doubles from `FIRST_S` to `LONGEST_S` with each death in a row."""

    deaths: int = 0

    def after_death(self, *, ran_s: float) -> Backoff:
        return Backoff(1 if ran_s >= STEADY_S else self.deaths + 1)

    @property
    def wait_s(self) -> float:
        """Time before the next start."""
        if self.deaths == 0:
            return 0.0
        # Why bounded: a process that dies all night must not overflow a float.
        return float(min(LONGEST_S, FIRST_S * 2 ** min(self.deaths - 1, 16)))

"""When a process that died is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.2
LONGEST_S = 10.0
STEADY_S = 30.0
"""A run of this length clears the record: what died then is no longer what died before."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `FIRST_S` to `LONGEST_S` with each death in a row."""

    deaths: int = 0

    def after_death(self, *, ran_s: float) -> Backoff:
        return Backoff(1 if ran_s >= STEADY_S else self.deaths + 1)

    @property
    def wait_s(self) -> float:
        """Before the next start."""
        if self.deaths == 0:
            return 0.0
        # The exponent is bounded: a process that dies all night must not overflow.
        return float(min(LONGEST_S, FIRST_S * 2 ** min(self.deaths - 1, 16)))

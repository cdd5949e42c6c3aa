"""Logs a condition that is noticed again and again: its beginning, a line now and then, its end.

unreachable = ConditionLog(log, active="bus.unreached", cleared="bus.reached")
unreachable.active(now_s=0.0)     logs bus.unreached  times=1   lasted_s=0
unreachable.active(now_s=0.2)     -
...
unreachable.active(now_s=30.0)    logs bus.unreached  times=151 lasted_s=30
unreachable.cleared(now_s=31.0)   logs bus.reached    times=151 lasted_s=31
unreachable.cleared(now_s=32.0)   -
"""

from __future__ import annotations

import logging

REPEATED_EVERY_S = 30.0


class ConditionLog:
    """One condition.

    Args:
        active: event that is logged while it lasts.
        cleared: event that is logged at its end.
    """

    def __init__(self, log: logging.Logger, *, active: str, cleared: str) -> None:
        self._log, self._active, self._cleared = log, active, cleared
        self._since_s: float | None = None
        self._logged_s = 0.0
        self._count = 0

    def active(self, now_s: float, **facts: object) -> None:
        """The condition was noticed."""
        self._count += 1
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._logged_s < REPEATED_EVERY_S:
            return
        self._logged_s = now_s
        self._write(self._active, now_s - self._since_s, facts)

    def cleared(self, now_s: float, **facts: object) -> None:
        """The condition does not hold, or no longer."""
        if self._since_s is not None:
            self._write(self._cleared, now_s - self._since_s, facts)
            self._since_s, self._count = None, 0

    def _write(self, event: str, lasted_s: float, facts: dict[str, object]) -> None:
        extra = {**facts, "times": self._count, "lasted_s": round(lasted_s, 1)}
        self._log.warning(event, extra=extra)

"""States noticed again and again: logged when they begin, now and then, and at their end."""

from __future__ import annotations

import logging

TOLD_EVERY_S = 30.0


class ConditionLog:
    """One such state. `began` and `over` are the events that are logged."""

    def __init__(self, log: logging.Logger, *, began: str, over: str) -> None:
        self._log, self._began, self._over = log, began, over
        self._since_s: float | None = None
        self._told_s = 0.0
        self._count = 0

    def again(self, now_s: float, **facts: object) -> None:
        """It is so. Logged the first time, then every `TOLD_EVERY_S` with how often it was seen."""
        self._count += 1
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s = now_s
        lasted_s = round(now_s - self._since_s, 1)
        self._log.warning(self._began, extra={**facts, "times": self._count, "lasted_s": lasted_s})

    def end(self, now_s: float, **facts: object) -> None:
        """It is not so, or no longer."""
        if self._since_s is None:
            return
        lasted_s = round(now_s - self._since_s, 1)
        self._log.warning(self._over, extra={**facts, "times": self._count, "lasted_s": lasted_s})
        self._since_s, self._count = None, 0

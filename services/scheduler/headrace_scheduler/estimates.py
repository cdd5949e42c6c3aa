"""How fast requests leave their lanes, and so how long one that comes now will wait."""

from __future__ import annotations

MIN_STARTS = 3.0
"""Fewer say nothing of a rate."""


class ServiceRate:
    """Starts per second while somebody waited, recent ones counting most.

    Only time with a backlog counts: starts of an idle fleet measure the
    callers, not the service.
    """

    def __init__(self, *, half_life_s: float, now_s: float) -> None:
        self._half_life_s = half_life_s
        self._starts = 0.0
        self._backlogged_s = 0.0
        self._was_backlogged = False
        self._at_s = now_s

    def advance(self, *, now_s: float, backlogged: bool) -> None:
        """Time has passed; `backlogged` is how it will be from now on."""
        passed_s = max(0.0, now_s - self._at_s)
        if self._was_backlogged:
            keep = 0.5 ** (passed_s / self._half_life_s)
            self._starts *= keep
            self._backlogged_s = self._backlogged_s * keep + passed_s
        self._at_s = now_s
        self._was_backlogged = backlogged

    def started(self, requests: int) -> None:
        """These left their lanes; counts only if others waited."""
        if self._was_backlogged:
            self._starts += requests

    @property
    def per_s(self) -> float | None:
        """None while unknown."""
        if self._starts < MIN_STARTS or self._backlogged_s <= 0.0:
            return None
        return self._starts / self._backlogged_s

    def wait_s(self, *, ahead: int, room: bool) -> float | None:
        """Estimated wait behind `ahead` requests; None while unknown, 0 where there is room now."""
        if ahead == 0 and room:
            return 0.0
        rate = self.per_s
        return None if rate is None else (ahead + 1) / rate

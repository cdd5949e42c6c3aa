"""What a report names of the running requests: all of them, or what has changed lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REPORTS_PER_CHANGE = 4
"""Reports that name a change. So many less one may be lost in a row before a reader has to wait for
a report that names everything."""


@dataclass(frozen=True, slots=True)
class ReportDelta:
    """Of one report."""

    since: int
    """Number of the report after which all of this changed; 0 if it is everything."""
    running: Mapping[str, int]
    """Attempt by request id."""
    ended: tuple[str, ...] = ()


class ChangeTracker:
    """What ran when a report was last made, and in which report each change was first named."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}
        self._changed: dict[str, int] = {}
        """Number of the report by request id."""

    def report(self, number: int, running: dict[str, int], *, full: bool) -> ReportDelta:
        """What the report of this number is to name; numbers grow by one, from 1.

        The first names everything, and so does one that would be no shorter.
        """
        for request_id, _ in running.items() ^ self._running.items():
            self._changed[request_id] = number
        self._running = running
        since = max(1, number - REPORTS_PER_CHANGE) if number > 1 else 0
        self._changed = {i: at for i, at in self._changed.items() if at > since}
        if full or since == 0 or len(self._changed) >= max(1, len(running)):
            return ReportDelta(0, running)
        now = {i: running[i] for i in self._changed if i in running}
        return ReportDelta(since, now, tuple(i for i in self._changed if i not in running))

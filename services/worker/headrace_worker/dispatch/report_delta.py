"""Which running requests a report names: all of them, or those that have changed recently.

Each change is named by `REPORTS_PER_CHANGE` reports in a row, because reports may get lost:

    report 1   running a, b, x     since 0: names a, b, x (a full report)
    report 2   running b, c, x     since 1: names c, ended a
    report 5   running b, c, x     since 1: names the same, as reports 3 and 4 did
    report 6   running b, c, x     since 2: nothing changed after report 2, so it names nothing

A reader that has applied report 1 may miss reports 2 to 4, because report 5 has `since` 1 too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REPORTS_PER_CHANGE = 4
"""Reports that name a change. One less may be lost in a row; then a reader needs a full report."""


@dataclass(frozen=True, slots=True)
class ReportDelta:
    """What one report names."""

    since: int
    """Number of the report after which all of this changed; 0 if it is everything."""
    running: Mapping[str, int]
    """Attempt by request id."""
    ended: tuple[str, ...] = ()


class ChangeTracker:
    """What ran at the last report, and which report was the first to name each change."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}
        self._changed: dict[str, int] = {}
        """Number of the report by request id."""

    def delta(self, number: int, running: dict[str, int], *, full: bool) -> ReportDelta:
        """Return what the report of this number must name; numbers grow by one, from 1.

        The first report names everything, and so does one that would be no shorter.
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

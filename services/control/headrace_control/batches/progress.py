"""Which rows of a batch are to be run, and which may have been called for before. Pure.

Rows are called for in the order of their lines, a few at a time. So that a feeder knows after a
crash which rows its predecessor may have called for, a mark in the database is ahead of them all:

    mark 256    rows of lines 1 to 256 may have been called for: 1 to 80 are finished, 81 to 144 run
    crash       the next feeder skips 1 to 80, asks gateways for 81 to 256 as for rows that may be
                running or have run, and begins 257 as a fresh one, once the mark is 512
"""

from __future__ import annotations

from collections.abc import Iterable

MARK_LINES = 256
"""How far the mark is moved at once."""


class Progress:
    def __init__(self, finished: Iterable[int], mark: int) -> None:
        """
        Args:
            finished: lines of rows that are finished.
            mark: `Batch.fed_line`.
        """
        self._finished = set(finished)
        self._inherited = self._mark = mark

    def is_finished(self, line: int) -> bool:
        return line in self._finished

    def is_fresh(self, line: int) -> bool:
        """Whether no feeder has called for this row before this one began."""
        return line > self._inherited

    def mark_before(self, line: int) -> int | None:
        """Return what the mark has to be before this row is called for; None: as it is."""
        return line + MARK_LINES - 1 if line > self._mark else None

    def move_mark(self, line: int) -> None:
        """Note that the database has this mark."""
        self._mark = max(self._mark, line)

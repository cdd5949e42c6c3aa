"""When a process that runs and does not do its work is replaced by another run of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.supervisor.plan.backoff import STEADY_S

PROBE_PERIOD_S = 1.0
_GAP_S = 10.0
"""After a longer pause between two looks nothing is known of the time between them: it was the
supervisor that stood still."""
_LONGEST_FACTOR = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a process does not do its work."""

    fact: str
    replace_after_s: float | None
    """How long it may last before another run is tried; None: another run would not help."""
    reason: str = ""
    """What callers are told, without paths of this machine; empty: the fact."""


class ReplacementPolicy:
    """What is known of one process, over all of its runs."""

    def __init__(self) -> None:
        self._unwell_since_s: float | None = None
        self._well_since_s: float | None = None
        self._seen_s = float("-inf")
        self._replaced = 0

    def is_over(self, fault: Fault | None, now_s: float) -> bool:
        """Take note of what a look has found; True if this run is to be replaced.

        Each replacement that has not helped doubles the time until the next.
        """
        if now_s - self._seen_s > _GAP_S:
            self._unwell_since_s = None
        self._seen_s = now_s
        if fault is None:
            self._see_well(now_s)
            return False
        self._well_since_s = None
        if self._unwell_since_s is None:
            self._unwell_since_s = now_s
        if fault.replace_after_s is None:
            return False
        patience_s = fault.replace_after_s * min(2**self._replaced, _LONGEST_FACTOR)
        if now_s - self._unwell_since_s < patience_s:
            return False
        self._replaced += 1
        self._unwell_since_s = None
        return True

    def _see_well(self, now_s: float) -> None:
        self._unwell_since_s = None
        if self._well_since_s is None:
            self._well_since_s = now_s
        if now_s - self._well_since_s >= STEADY_S:
            self._replaced = 0

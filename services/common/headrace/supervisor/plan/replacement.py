"""When a process that runs and does not do its work is replaced by another run. Pure.

With `replace_after_s=3`, probed once a second:

    second   probe             decision
    0-2      fault             wait
    3        fault             replace: the fault has lasted 3 s
    4-9      fault             wait: this replacement did not help, so the next comes after 6 s
    10       fault             replace; the next after 12 s, then 24 s
    11       no fault          -
    41       no fault          30 s without a fault: the next fault is replaced after 3 s again
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.supervisor.plan.backoff import STEADY_S

PROBE_PERIOD_S = 1.0
_GAP_S = 10.0
"""A longer pause between two probes means that the supervisor itself was stopped."""
_MAX_FACTOR = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a process does not do its work."""

    fact: str
    replace_after_s: float | None
    """How long it may last before the process is replaced; None: another run would not help."""
    reason: str = ""
    """The text for clients, without paths of this machine; empty: the fact."""


class ReplacementPolicy:
    """The faults of one process, over all of its runs."""

    def __init__(self) -> None:
        self._fault_since_s: float | None = None
        self._healthy_since_s: float | None = None
        self._probed_s = float("-inf")
        self._replaced = 0

    def should_replace(self, fault: Fault | None, now_s: float) -> bool:
        """Take account of a probe; return whether to replace this run.

        Each replacement that has not helped doubles the time until the next.
        """
        if now_s - self._probed_s > _GAP_S:
            self._fault_since_s = None
        self._probed_s = now_s
        if fault is None:
            self._be_healthy(now_s)
            return False
        self._healthy_since_s = None
        if self._fault_since_s is None:
            self._fault_since_s = now_s
        if fault.replace_after_s is None:
            return False
        wait_s = fault.replace_after_s * min(2**self._replaced, _MAX_FACTOR)
        if now_s - self._fault_since_s < wait_s:
            return False
        self._replaced += 1
        self._fault_since_s = None
        return True

    def _be_healthy(self, now_s: float) -> None:
        self._fault_since_s = None
        if self._healthy_since_s is None:
            self._healthy_since_s = now_s
        if now_s - self._healthy_since_s >= STEADY_S:
            self._replaced = 0

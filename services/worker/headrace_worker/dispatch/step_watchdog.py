"""Detects an engine that does not return from a step although its process lives and reports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headrace_worker.runtime.worker import Worker

log = logging.getLogger(__name__)

FAIL_REQUESTS_AFTER, END_PROCESS_AFTER = 4, 12
"""Multiples of the time after which an engine is stalled."""
_CHECKS = 8
"""Checks in the time after which an engine is stalled."""


class EngineStalled(Exception):
    """The engine has been in one step for so long that only a new process can help."""


class StepWatchdog:
    """Reports why a worker accepts nothing now, and ends a stall that lasts.

    Args:
        after_s: an engine is stalled once it has been in one step this long. It may yet return.
        on_change: called when it has become stalled, and when it has returned.
        on_death: called once, at the end.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        after_s: float,
        on_change: Callable[[], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._worker, self._after_s = worker, after_s
        self._on_change, self._on_death = on_change, on_death

    @property
    def stall(self) -> str:
        """How long a stalled engine has been in its step; empty if it is not. Thread-safe."""
        busy_s = self._worker.pump.busy_s()
        stalled = busy_s >= self._after_s
        return f"the engine has been in one step for {busy_s:.1f} s" if stalled else ""

    @property
    def unavailable_reason(self) -> str:
        """Why nothing is accepted, for this or for the engine's own reason; empty if it is."""
        return self.stall or self._worker.pump.statistics().unavailable_reason

    async def run(self) -> None:
        """Watch the engine until it is stalled for good."""
        checks = 0
        while True:
            await asyncio.sleep(self._after_s / _CHECKS)
            was_stalled, stall = checks > 0, self.stall
            # Why checks and not the time of the step: a process that was suspended as a whole
            # has been in its step for as long, and returns from it at once.
            checks = checks + 1 if stall else 0
            if bool(stall) is not was_stalled:
                log.warning("engine.stalled" if stall else "engine.back")
                self._on_change()
            if checks >= (FAIL_REQUESTS_AFTER - 1) * _CHECKS:
                self._worker.fail_all(stall)
            if checks >= (END_PROCESS_AFTER - 1) * _CHECKS:
                self._on_death(EngineStalled(stall))
                return

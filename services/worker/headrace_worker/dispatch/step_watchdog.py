"""An engine that does not come back from a step, in a process that lives and reports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headrace_worker.runtime.worker import Worker

log = logging.getLogger(__name__)

FAIL_REQUESTS_AFTER, END_PROCESS_AFTER = 4, 12
"""Times as long as what makes it stalled: what runs goes on elsewhere; the process ends."""
_CHECKS = 8
"""In the time that makes it stalled."""


class EngineStalled(Exception):
    """The engine is in one step for so long that only a new process can help."""


class StepWatchdog:
    """Why a worker takes nothing now; and who sees to it that this does not last.

    Args:
        after_s: in one step for so long, an engine is stalled. It may yet come back.
        on_change: called when it has become stalled, and when it has come back.
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
    def fact(self) -> str:
        """Of a stalled engine; empty where it is none. From any thread."""
        busy_s = self._worker.pump.busy_s()
        stalled = busy_s >= self._after_s
        return f"the engine has been in one step for {busy_s:.1f} s" if stalled else ""

    @property
    def refusing(self) -> str:
        """Why nothing is taken, for this or for the engine's own reason; empty: it is."""
        return self.fact or self._worker.pump.statistics().refusing

    async def run(self) -> None:
        """Look after the engine until it is stalled for good."""
        looks = 0
        while True:
            await asyncio.sleep(self._after_s / _CHECKS)
            was_stalled, fact = looks > 0, self.fact
            is_stalled = bool(fact)
            # Why looks and not the time of the step: a process that was frozen as a whole has
            # been in its step for as long, and comes back from it at once.
            looks = looks + 1 if is_stalled else 0
            if is_stalled is not was_stalled:
                log.warning("engine.stalled" if is_stalled else "engine.back")
                self._on_change()
            if looks >= (FAIL_REQUESTS_AFTER - 1) * _CHECKS:
                self._worker.fail_all(fact)
            if looks >= (END_PROCESS_AFTER - 1) * _CHECKS:
                self._on_death(EngineStalled(fact))
                return

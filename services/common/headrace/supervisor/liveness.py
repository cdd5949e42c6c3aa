"""Has a process that runs and does not do its work replaced, and says why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from headrace.supervisor.plan.replacement import PROBE_PERIOD_S, ReplacementPolicy
from headrace.supervisor.probes import Probe
from headrace.supervisor.supervised_process import SupervisedProcess

log = logging.getLogger(__name__)


class LivenessMonitor:
    """Looks at one kept process for as long as it is kept.

    Args:
        on_look: called after each look, whatever it has found.
    """

    def __init__(
        self, keeper: SupervisedProcess, look: Probe, *, on_look: Callable[[], None]
    ) -> None:
        self._keeper, self._look, self._on_look = keeper, look, on_look
        self._patience = ReplacementPolicy()
        self._was_unwell = False

    async def run(self) -> None:
        """Until the process has ended for good."""
        try:
            while not self._keeper.ended.is_set():
                try:
                    await self._look_once()
                except Exception:  # top of a task: a failed look must not end the mesh
                    log.exception("mesh.look_failed", extra={"process": self._keeper.program.name})
                self._on_look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_PERIOD_S):
                        await self._keeper.ended.wait()
        finally:
            await self._look.close()

    async def _look_once(self) -> None:
        keeper = self._keeper
        pid, ports = keeper.record.pid, dict(keeper.ports)
        if pid is None:
            return
        fault = await self._look.look(ports) if ports else self._look.silent
        if keeper.ended.is_set() or keeper.record.pid != pid:
            return  # It died meanwhile, which its keeper mends.
        # One look may fail on a machine that is busy for a moment.
        if ports and (fault is None or self._was_unwell):
            keeper.see("" if fault is None else fault.fact)
        self._was_unwell = fault is not None
        if self._patience.is_over(fault, time.monotonic()) and fault is not None:
            await keeper.replace(f"{fault.fact}, for more than {fault.replace_after_s:g} s")

"""Probes a process that runs, and replaces it when it does not do its work."""

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
    """Probes one process once a second.

    Args:
        on_probe: called after each probe, whatever it has found.
    """

    def __init__(
        self, process: SupervisedProcess, probe: Probe, *, on_probe: Callable[[], None]
    ) -> None:
        self._process, self._probe, self._on_probe = process, probe, on_probe
        self._policy = ReplacementPolicy()
        self._had_fault = False

    async def run(self) -> None:
        """Probe until the process has ended for good."""
        try:
            while not self._process.ended.is_set():
                try:
                    await self._check()
                except Exception:  # top of a task: a failed probe must not end the mesh
                    name = self._process.program.name
                    log.exception("mesh.probe_failed", extra={"process": name})
                self._on_probe()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_PERIOD_S):
                        await self._process.ended.wait()
        finally:
            await self._probe.close()

    async def _check(self) -> None:
        process = self._process
        pid, ports = process.record.pid, process.record.ports
        if pid is None:
            return
        fault = await self._probe.check(ports) if ports else self._probe.not_listening
        if process.ended.is_set() or process.record.pid != pid:
            return  # the process died meanwhile, and is restarted for that
        # Why only the second in a row: one probe may fail on a machine that is busy for a moment.
        if ports and (fault is None or self._had_fault):
            process.set_fault("" if fault is None else fault.fact)
        self._had_fault = fault is not None
        if self._policy.should_replace(fault, time.monotonic()) and fault is not None:
            await process.replace(f"{fault.fact}, for more than {fault.replace_after_s:g} s")

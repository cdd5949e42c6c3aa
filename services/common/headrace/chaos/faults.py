"""Injects faults into the processes of a mesh on this machine, by the pids in its record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable
from enum import StrEnum

from headrace.chaos.history import EventLog, FaultInjected, FaultRecovered
from headrace.supervisor.health import wait_until_ready
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.state_dir import ProcessRecord, StateDir

FREEZE_S = (3.5, 6.0)
"""Longer than the silence after which a scheduler takes a worker for dead."""
RECOVERY_TIMEOUT_S = 60.0


class FaultKind(StrEnum):
    WORKER = "worker"
    SCHEDULER = "scheduler"
    FREEZE = "freeze"
    NATS = "nats"
    GATEWAY = "gateway"
    CONTROL = "control"
    """Nothing but the administration may notice: keys that are known go on."""
    SLOW_READER = "slow-reader"
    DRAIN = "drain"
    """A step of a rolling restart: SIGTERM, and the supervisor starts the process again."""
    ROLLING = "rolling"
    """A whole rolling restart: a drain of every process, one after another."""


_SERVICES = (Role.WORKER, Role.SCHEDULER, Role.GATEWAY)
_DRAINS = (FaultKind.DRAIN, FaultKind.ROLLING)
_TARGET_ROLES = {
    FaultKind.WORKER: (Role.WORKER,),
    FaultKind.SCHEDULER: (Role.SCHEDULER,),
    FaultKind.FREEZE: (Role.WORKER,),
    FaultKind.NATS: (Role.NATS,),
    FaultKind.GATEWAY: (Role.GATEWAY,),
    FaultKind.CONTROL: (Role.CONTROL,),
    FaultKind.DRAIN: _SERVICES,
    FaultKind.ROLLING: _SERVICES,
}


class FaultInjector:
    """Injects a fault and waits until its target is ready again.

    Args:
        report: called with what is being done.
    """

    def __init__(
        self, state_dir: StateDir, log: EventLog, rng: random.Random, report: Callable[[str], None]
    ) -> None:
        self._state_dir, self._log, self._rng, self._report = state_dir, log, rng, report
        self._count = 0

    async def inject(self, kind: FaultKind) -> None:
        """Inject a fault into one running process, or into each if it is rolling."""
        processes = self._state_dir.read_record().processes
        targets = [p for p in processes if p.role in _TARGET_ROLES[kind] and p.pid and p.ports]
        if not targets:
            self._report(f"{kind}: no process of this kind runs")
        if targets and kind is not FaultKind.ROLLING:
            targets = [self._rng.choice(targets)]
        for target in targets:
            await self._inject(kind, target)

    async def _inject(self, kind: FaultKind, target: ProcessRecord) -> None:
        fault = self.injected(kind, target.name)
        try:
            async with asyncio.timeout(RECOVERY_TIMEOUT_S):
                if kind is FaultKind.FREEZE:
                    await self._freeze(target)
                else:
                    _signal(target, signal.SIGTERM if kind in _DRAINS else signal.SIGKILL)
                former_pid = None if kind is FaultKind.FREEZE else target.pid
                await wait_until_ready(self._state_dir, target.name, other_than=former_pid)
        except TimeoutError:
            # The event log shows a fault without a recovery.
            self._report(f"{target.name} is not ready {RECOVERY_TIMEOUT_S:g} s later")
            return
        self.recovered(fault)

    def injected(self, kind: FaultKind, target: str) -> int:
        """Log a fault; return its number."""
        self._count += 1
        self._report(f"{kind}: {target}")
        self._log.append(FaultInjected(self._log.now_s, self._count, kind, target))
        return self._count

    def recovered(self, fault: int) -> None:
        self._log.append(FaultRecovered(self._log.now_s, fault))

    async def _freeze(self, target: ProcessRecord) -> None:
        _signal(target, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._rng.uniform(*FREEZE_S))
        finally:
            _signal(target, signal.SIGCONT)


def _signal(target: ProcessRecord, number: signal.Signals) -> None:
    assert target.pid is not None
    # It may have died by itself just now; the supervisor starts it again all the same.
    with contextlib.suppress(ProcessLookupError):
        os.kill(target.pid, number)

"""What is done to a mesh: only to one of this machine, by the pids that its supervisor wrote."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable
from enum import StrEnum

import httpx

from headrace.chaos.history import EventLog, FaultInjected, FaultRecovered
from headrace.supervisor.health import health_url, is_ready
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.state_dir import ProcessRecord, StateDir

FREEZE_S = (3.5, 6.0)
"""Beyond the silence after which a scheduler gives a worker up."""
MENDED_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.05


class FaultKind(StrEnum):
    WORKER = "worker"
    SCHEDULER = "scheduler"
    FREEZE = "freeze"
    NATS = "nats"
    GATEWAY = "gateway"
    SLOW_READER = "slow-reader"
    DRAIN = "drain"
    """Not a fault but a rolling restart's step: SIGTERM, and the supervisor starts it again."""
    ROLLING = "rolling"
    """A whole rolling restart: that, for every process in turn."""


_VICTIMS = {
    FaultKind.WORKER: (Role.WORKER,),
    FaultKind.SCHEDULER: (Role.SCHEDULER,),
    FaultKind.FREEZE: (Role.WORKER,),
    FaultKind.NATS: (Role.NATS,),
    FaultKind.GATEWAY: (Role.GATEWAY,),
    FaultKind.DRAIN: (Role.WORKER, Role.SCHEDULER, Role.GATEWAY),
    FaultKind.ROLLING: (Role.WORKER, Role.SCHEDULER, Role.GATEWAY),
}


class FaultInjector:
    """Strikes, and waits until what was struck is well again."""

    def __init__(
        self, state_dir: StateDir, ledger: EventLog, rng: random.Random, tell: Callable[[str], None]
    ) -> None:
        self._state_dir, self._ledger, self._rng, self._tell = state_dir, ledger, rng, tell
        self._count = 0

    async def strike(self, kind: FaultKind) -> None:
        """One of those that are up, all of them where it is rolling; nothing if none is."""
        processes = self._state_dir.read_record().processes
        up = [p for p in processes if p.role in _VICTIMS[kind] and p.pid and p.ports]
        chosen = up if kind is FaultKind.ROLLING or not up else [self._rng.choice(up)]
        for victim in chosen:
            await self._strike(kind, victim)

    async def _strike(self, kind: FaultKind, victim: ProcessRecord) -> None:
        number = self.struck(kind, victim.name)
        try:
            async with asyncio.timeout(MENDED_WITHIN_S):
                if kind is FaultKind.FREEZE:
                    await self._freeze(victim)
                else:
                    await self._end(victim, kind)
        except TimeoutError:
            # The ledger shows it: this fault is never mended.
            self._tell(f"{victim.name} is not well {MENDED_WITHIN_S:g} s later")
            return
        self.mended(number)

    def struck(self, kind: FaultKind, target: str) -> int:
        self._count += 1
        self._tell(f"{kind}: {target}")
        self._ledger.note(FaultInjected(self._ledger.now_s, self._count, kind, target))
        return self._count

    def mended(self, number: int) -> None:
        self._ledger.note(FaultRecovered(self._ledger.now_s, number))

    async def _end(self, victim: ProcessRecord, kind: FaultKind) -> None:
        drains = kind in (FaultKind.DRAIN, FaultKind.ROLLING)
        _signal(victim, signal.SIGTERM if drains else signal.SIGKILL)
        await self._until_well(victim.name, other_than=victim.pid)

    async def _freeze(self, victim: ProcessRecord) -> None:
        _signal(victim, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._rng.uniform(*FREEZE_S))
        finally:
            _signal(victim, signal.SIGCONT)
        await self._until_well(victim.name, other_than=None)

    async def _until_well(self, name: str, *, other_than: int | None) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=1) as http:
            while True:
                now = next(p for p in self._state_dir.read_record().processes if p.name == name)
                is_new = now.pid not in (None, other_than)
                if is_new and await is_ready(http, health_url(now.role, now.ports)):
                    return
                await asyncio.sleep(_LOOK_EVERY_S)


def _signal(victim: ProcessRecord, number: signal.Signals) -> None:
    assert victim.pid is not None
    # It may have died by itself just now; the supervisor starts it again all the same.
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim.pid, number)

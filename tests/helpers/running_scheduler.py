"""A real scheduler within the test's event loop, with little patience."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from headrace.bus import Bus, BusError
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.runtime.service import Service

QUICK = {
    "lease_ttl_s": 1,
    "lease_renew_s": 0.25,
    "lease_acquire_s": 0.1,
    "adoption_window_s": 0.3,
    "worker_silence_s": 0.5,
    "gateway_silence_s": 1.0,
    "dispatch_timeout_s": 0.5,
    "notice_timeout_s": 0.5,
    "notice_repeat_s": 0.1,
    "settle_grace_s": 0.5,
    "lane_report_s": 0.05,
    "drain_s": 0.5,
}
"""Settings with a tenth of the usual patience."""


def settings(**changes: Any) -> SchedulerSettings:
    return SchedulerSettings(**(QUICK | changes))


class SchedulerProcess:
    """A scheduler in this event loop, with a connection of its own."""

    def __init__(self, service: Service, bus: Bus, task: asyncio.Task[None]) -> None:
        self.service, self._bus, self._task = service, bus, task

    async def stop(self) -> None:
        """End as on SIGTERM: release the leases."""
        await self.service.drain()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._bus.close()

    async def kill(self) -> None:
        """End as by SIGKILL: without a message to any process."""
        await self._bus.close()
        self._task.cancel()
        with suppress(asyncio.CancelledError, BusError, ExceptionGroup):
            await self._task


async def start_scheduler(
    url: str, name: str = "one", *, through: Callable[[Bus], Bus] = lambda bus: bus, **changes: Any
) -> SchedulerProcess:
    bus = through(await connect(url, name=name))
    service = Service(f"{name}-{uuid.uuid4().hex[:6]}", bus, settings(**changes), SystemClock())
    return SchedulerProcess(service, bus, asyncio.create_task(service.run()))


@asynccontextmanager
async def scheduler(url: str, name: str = "one", **changes: Any) -> AsyncIterator[SchedulerProcess]:
    process = await start_scheduler(url, name, **changes)
    try:
        yield process
    finally:
        await process.stop()

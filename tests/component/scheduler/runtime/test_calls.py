"""The order of what a leader does for a request that it ends itself."""

from __future__ import annotations

import asyncio
from typing import cast

from headrace.bus import Bus
from headrace.bus.jetstream import JetStreamBus
from headrace.errors import RequestCancelled
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership
from headrace_scheduler.runtime.calls import OutgoingCalls
from headrace_scheduler.state.events import Acknowledge, StoreResult
from helpers.eventually import eventually
from helpers.recorded_bus import RecordedBus

MODEL = "valley"


async def test_a_request_is_acknowledged_once_its_result_is_stored(bus: JetStreamBus) -> None:
    recorded = RecordedBus(bus, MODEL)
    calls = OutgoingCalls(
        Leadership("one", MODEL, 1, 0.0, 0.0),
        cast(Bus, recorded),
        SchedulerSettings(),
        handle=print,
        acknowledge=lambda command: recorded.calls.append(f"acknowledged {command.request_id}"),
    )
    record = RequestRecord(request_id="a", model=MODEL, detached=True)
    acknowledge = Acknowledge("a", "standard", "token")
    async with asyncio.TaskGroup() as tasks:
        calls.start_in(tasks)
        calls.start(StoreResult(record, RequestCancelled("it was cancelled"), acknowledge))
        await eventually(lambda: len(recorded.calls) == 2)
    assert recorded.calls == ["stored", "acknowledged a"]
    assert await bus.get_result("a") is not None

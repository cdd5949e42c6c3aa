"""Urgent before bulk, and tenant beside tenant, with a real scheduler over a real nats-server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.internal.v1.dispatch_pb2 import WorkerParkRequest, WorkerParkResponse
from headrace.internal.v1.model_card_pb2 import Capabilities
from helpers.access_tables import PublishedTables
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler
from helpers.scheduler_actors import GatewayActor, WorkerActor, next_lane_report, unsettled


class ParkingWorker(WorkerActor):
    """Parks what its leader requests it to park."""

    def __init__(self, bus: JetStreamBus, worker_id: str) -> None:
        super().__init__(bus, worker_id)
        self.card.capabilities.CopyFrom(Capabilities(resume=True, park=True))
        self._parking: list[asyncio.Task[None]] = []

    async def start(self) -> ParkingWorker:
        await super().start()
        subject = subjects.worker_park(self.worker_id)
        self._served.append(await self._bus.serve(subject, self._on_park))
        return self

    async def _on_park(self, payload: bytes) -> bytes:
        request = WorkerParkRequest.FromString(payload)
        running = self.running.get(request.request_id)
        found = running is not None and running.attempt == request.attempt
        if found:
            self._parking.append(asyncio.create_task(self.park(request.request_id)))
        return WorkerParkResponse(found=found).SerializeToString()


@pytest.fixture
async def worker(bus: JetStreamBus) -> AsyncIterator[WorkerActor]:
    actor = await ParkingWorker(bus, "worker-1").start()
    yield actor
    await actor.die()


async def test_a_bulk_request_is_parked_and_resumes_where_its_client_is(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        for i in range(4):
            await gateway.submit(f"bulk-{i}", priority="bulk")
        await eventually(lambda: len(worker.running) == 4)
        gateway.relayed["bulk-3"] = [7, 8, 9]
        await gateway.submit("urgent", priority="interactive")
        await eventually(lambda: "urgent" in worker.running)
        assert set(worker.running) == {"bulk-0", "bulk-1", "bulk-2", "urgent"}
        await worker.finish("urgent")
        await gateway.settle("urgent")
        await eventually(lambda: "bulk-3" in worker.running)
        again = worker.running["bulk-3"]
        assert list(again.progress[0].output_ids) == [7, 8, 9]
        assert again.failures == 0
        assert len(worker.attempts("bulk-3")) == 2
        await gateway.settle(*list(worker.running))
    assert await unsettled(bus) == []


async def test_tenants_start_by_their_weights_however_much_one_requests(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    tables = PublishedTables(bus)
    async with scheduler(nats_url, max_waiting=1000):
        for i in range(4):
            await gateway.submit(f"first-{i}")
        await eventually(lambda: len(worker.running) == 4)
        for i in range(60):
            await gateway.submit(f"a-{i}", tenant="a")
        for i in range(60):
            await gateway.submit(f"b-{i}", tenant="b")
        await eventually(lambda: _all_wait(bus, 120), within_s=20)
        # Live: the weight comes while they wait.
        await tables.tenant("b", weight=3.0)
        await tables.stamp()
        await asyncio.sleep(0.2)
        while len(worker.accepted) < 44:
            before = len(worker.accepted)
            done = next(iter(worker.running))
            await worker.finish(done)
            await gateway.settle(done)
            await eventually(lambda n=before: len(worker.accepted) > n)
        started = Counter(r.request_id[0] for r in worker.accepted[4:44])
        assert abs(started["b"] - 30) <= 3, started
        gateway.relayed.clear()


async def _all_wait(bus: JetStreamBus, count: int) -> bool:
    return sum(lane.waiting for lane in (await next_lane_report(bus)).values()) == count

"""A leader lists what is live, over the bus."""

from __future__ import annotations

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.internal.v1.operations_pb2 import ListLiveRequestsRequest, ListLiveRequestsResponse
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler
from helpers.scheduler_actors import MODEL, GatewayActor, WorkerActor, cancel


async def listed(bus: JetStreamBus, **query: object) -> ListLiveRequestsResponse:
    payload = ListLiveRequestsRequest(**query).SerializeToString()  # type: ignore[arg-type]
    answer = await bus.request(subjects.live_requests(MODEL), payload, timeout_s=2.0)
    return ListLiveRequestsResponse.FromString(answer)


async def test_what_waits_and_runs_is_listed_until_it_ends(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        for number in range(6):
            await gateway.submit(f"r{number}", tenant="team-a" if number == 2 else "")
        await eventually(lambda: len(worker.running) == 4)

        async def all_listed() -> bool:
            return len((await listed(bus)).rows) == 6

        await eventually(all_listed)
        rows = (await listed(bus)).rows
        assert [row.request_id for row in rows] == [f"r{number}" for number in range(6)]
        assert [row.running for row in rows] == [True] * 4 + [False] * 2
        assert {row.worker_name for row in rows} == {"name of worker-1", ""}

        of_tenant = await listed(bus, tenant="team-a")
        assert [row.request_id for row in of_tenant.rows] == ["r2"]
        first = await listed(bus, limit=4)
        assert first.has_more
        rest = await listed(bus, limit=4, after_sequence=first.rows[-1].sequence)
        assert [row.request_id for row in rest.rows] == ["r4", "r5"]
        assert not rest.has_more

        await cancel(bus, "r5")

        async def is_cancelled() -> bool:
            return "r5" not in {row.request_id for row in (await listed(bus)).rows}

        await eventually(is_cancelled)

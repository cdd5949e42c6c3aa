"""OperationService over a real broker, with a real leader and a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.admin.v1 import operations_pb2 as pb
from headrace.auth.caller import Caller
from headrace.auth.scopes import ADMIN
from headrace.bus import Bus
from headrace.bus.control import serve_drain, serve_drained_mark
from headrace.bus.jetstream import JetStreamBus
from headrace.clock import Clock, SystemClock
from headrace.errors import (
    FailedPrecondition,
    InvalidRequest,
    ModelNotFound,
    RequestNotFound,
    ResourceNotFound,
)
from headrace.fleet.reports import ReportedFleet
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import DeadLetter, ResultRecord
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace.v1.common_pb2 import PRIORITY_BULK
from headrace_control.api.callers import calling
from headrace_control.api.operation_service import OperationService
from headrace_control.operations.fleet import FleetReports
from headrace_control.store import Store
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler
from helpers.scheduler_actors import MODEL, GatewayActor, WorkerActor

CONTEXT: Any = None
"""No method reads it."""
TEAM_A = Caller(tenant="team-a", scopes=frozenset({ADMIN}), key_id="k1", client="10.1.2.3")


@dataclass(frozen=True)
class Parts:
    bus: Bus
    clock: Clock
    store: Store
    fleet: ReportedFleet


@dataclass(frozen=True)
class Running:
    service: OperationService
    store: Store
    gateway: GatewayActor
    worker: WorkerActor

    async def listed(self, **query: Any) -> pb.ListRequestsResponse:
        return await self.service.ListRequests(pb.ListRequestsRequest(**query), CONTEXT)

    async def audited(self) -> list[tuple[str, str, str]]:
        page = await self.store.audit.list()
        return [(e.action, e.resource, e.actor) for e in reversed(page.items)]


@pytest.fixture
async def running(nats_url: str, bus: JetStreamBus, tmp_path: Path) -> AsyncIterator[Running]:
    card = ModelCard(model=MODEL, weights_digest="w1", max_slots=4, aliases=["small"])
    await bus.put_card(MODEL, card.SerializeToString())
    store = await Store.open(f"sqlite:///{tmp_path}/headrace.db", upgrade=True)
    gateway, worker = GatewayActor(bus, "gw-1"), WorkerActor(bus, "worker-1", slots=3)
    reports = FleetReports(bus, SystemClock())
    async with scheduler(nats_url), reports.running():
        await gateway.start()
        await worker.start()
        service = OperationService(Parts(bus, SystemClock(), store, reports.shown))
        yield Running(service, store, gateway, worker)
        await gateway.die()
        await worker.die()
    await store.close()


async def submit_four(running: Running) -> None:
    """Two of team-a, which run, and two of the default tenant, which wait."""
    await running.gateway.submit("headrace/canary-1", tenant="headrace", probe=True)
    await eventually(lambda: "headrace/canary-1" in running.worker.running)
    for key in ("team-a/r0", "team-a/r1", "r2", "r3"):
        await running.gateway.submit(key, tenant="team-a" if "/" in key else "default")

    async def all_known() -> bool:
        found = (await running.listed()).requests
        return len(found) == 4 and sum(r.state == "running" for r in found) == 2

    await eventually(all_known)


async def test_requests_are_listed_in_pages_with_where_they_run(running: Running) -> None:
    await submit_four(running)
    first = await running.listed(page_size=3)
    assert [r.name for r in first.requests] == [
        "tenants/team-a/requests/r0",
        "tenants/team-a/requests/r1",
        "tenants/default/requests/r2",
    ]
    assert [r.worker for r in first.requests] == ["name of worker-1"] * 2 + [""]
    second = await running.listed(page_size=3, page_token=first.next_page_token)
    assert [r.name for r in second.requests] == ["tenants/default/requests/r3"]
    assert not second.next_page_token
    assert len((await running.listed(model="small")).requests) == 4, "by an alias"
    with pytest.raises(ModelNotFound, match="other"):
        await running.listed(model="other")


async def test_canaries_are_listed_for_the_tenant_of_the_mesh_alone(running: Running) -> None:
    await submit_four(running)
    (canary,) = (await running.listed(parent="tenants/headrace")).requests
    assert canary.name == "tenants/headrace/requests/canary-1"


async def test_a_model_whose_leader_does_not_answer_is_named(
    running: Running, bus: JetStreamBus
) -> None:
    card = ModelCard(model="other", weights_digest="w9", max_slots=4)
    await bus.put_card("other", card.SerializeToString())
    await submit_four(running)

    async def other_is_led() -> bool:
        return not (await running.listed()).unreachable

    await eventually(other_is_led)
    await bus.put_card("led by none", b"")
    assert (await running.listed()).unreachable == [""]


async def test_a_tenants_administrator_sees_and_cancels_its_own(running: Running) -> None:
    await submit_four(running)
    with calling(TEAM_A):
        names = [r.name for r in (await running.listed()).requests]
        assert names == ["tenants/team-a/requests/r0", "tenants/team-a/requests/r1"]
        with pytest.raises(ResourceNotFound, match="tenant default not found"):
            await running.listed(parent="tenants/default")
        with pytest.raises(RequestNotFound) as foreign:
            await cancelled(running, "tenants/default/requests/r2")
        with pytest.raises(RequestNotFound) as unknown:
            await cancelled(running, "tenants/team-a/requests/r2")
        assert str(foreign.value) == str(unknown.value)
        assert (await cancelled(running, "tenants/team-a/requests/r0")).state == "running"
    await eventually(lambda: "team-a/r0" in running.gateway.ended)
    audited = ("requests.cancel", "tenants/team-a/requests/r0", "tenants/team-a/keys/k1")
    assert await running.audited() == [audited]
    event = (await running.store.audit.list()).items[0]
    assert (event.tenant, event.client) == ("team-a", "10.1.2.3")


async def cancelled(running: Running, name: str) -> pb.LiveRequest:
    return await running.service.CancelRequest(pb.CancelRequestRequest(name=name), CONTEXT)


async def test_waiting_and_running_requests_are_cancelled_and_ended_ones_are_told(
    running: Running, bus: JetStreamBus
) -> None:
    await submit_four(running)
    assert (await cancelled(running, "tenants/default/requests/r3")).state == "waiting"
    found = await cancelled(running, "tenants/team-a/requests/r1")
    assert (found.state, found.worker) == ("running", "name of worker-1")
    await eventually(lambda: {"r3", "team-a/r1"} <= running.gateway.ended.keys())
    await eventually(lambda: "team-a/r1" in dict(running.worker.cancelled))
    result = ResultRecord(request_id="team-a/r1", model=MODEL)
    await bus.put_result("team-a/r1", result.SerializeToString())

    async def is_ended() -> bool:
        return (await cancelled(running, "tenants/team-a/requests/r1")).state == "ended"

    await eventually(is_ended)
    with pytest.raises(RequestNotFound, match="r9"):
        await cancelled(running, "tenants/default/requests/r9")


async def test_a_cancel_of_what_an_unreachable_leader_may_have_is_to_be_repeated(
    running: Running, bus: JetStreamBus
) -> None:
    await bus.put_card("led by none", b"")
    with pytest.raises(Exception, match="may be live"):
        await cancelled(running, "tenants/default/requests/r9")


async def test_the_fleet_comes_at_once_with_rates(running: Running) -> None:
    stream = running.service.WatchFleet(pb.WatchFleetRequest(), CONTEXT)
    found = [await anext(aiter(stream))]

    async def is_seen() -> bool:
        found.append(await anext(aiter(running.service.WatchFleet(pb.WatchFleetRequest(), None))))  # type: ignore[arg-type]
        return bool(found[-1].workers and found[-1].lanes)

    await eventually(is_seen)
    assert [w.name for w in found[-1].workers] == ["name of worker-1"]
    assert [r.worker_id for r in found[-1].rates] == ["worker-1"]
    assert {lane.model for lane in found[-1].lanes} == {MODEL}


async def test_a_worker_is_drained_and_undrained_through_its_supervisor(
    running: Running, bus: JetStreamBus
) -> None:
    graces: list[float | None] = []
    marks: list[bool] = []

    def mark(drained: bool) -> bool:
        marks.append(drained)
        return marks[:-1][-1:] == [True]

    served = await serve_drain(bus, "w", graces.append)
    drain = pb.DrainWorkerRequest(name="workers/w")
    drain.grace.seconds = 2
    reply = await running.service.DrainWorker(drain, CONTEXT)
    assert (reply.draining, reply.stays_stopped, graces) == (1, False, [2.0])
    undrain = pb.UndrainWorkerRequest(name="workers/w")
    with pytest.raises(ResourceNotFound, match="no supervisor"):
        await running.service.UndrainWorker(undrain, CONTEXT)

    await serve_drained_mark(bus, "w", mark)
    reply = await running.service.DrainWorker(pb.DrainWorkerRequest(name="workers/w"), CONTEXT)
    assert (reply.draining, reply.stays_stopped) == (1, True)
    await served.close()
    reply = await running.service.DrainWorker(pb.DrainWorkerRequest(name="workers/w"), CONTEXT)
    assert (reply.draining, reply.stays_stopped) == (0, True)
    assert (await running.service.UndrainWorker(undrain, CONTEXT)).was_drained
    assert not (await running.service.UndrainWorker(undrain, CONTEXT)).was_drained

    with pytest.raises(ResourceNotFound, match="no process named x"):
        await running.service.DrainWorker(pb.DrainWorkerRequest(name="workers/x"), CONTEXT)
    drain.grace.seconds = -1
    with pytest.raises(InvalidRequest, match="grace is -1 s"):
        await running.service.DrainWorker(drain, CONTEXT)
    actions = [action for action, _, _ in await running.audited()]
    assert actions == ["workers.drain"] * 3 + ["workers.undrain"] * 2
    first = (await running.store.audit.list()).items[-1]
    assert json.loads(first.details) == {"grace_s": 2.0}


async def test_a_dead_letter_is_resent_once_however_often_it_is_requested(
    running: Running, bus: JetStreamBus
) -> None:
    record = RequestRecord(
        request_id="team-a/poison",
        tenant="team-a",
        model=MODEL,
        weights_digest="w1",
        prompt_ids=[1, 2, 3],
        priority=PRIORITY_BULK,
        n=1,
        failures=3,
        attempt=77,
        progress=[ChoiceProgress(output_ids=[7, 8])],
    )
    record.sampling.max_tokens = 16
    letter = DeadLetter(message=record.SerializeToString(), reason="broke", attempts=3, model=MODEL)
    await bus.store_dead_letter(MODEL, letter.SerializeToString())
    await bus.store_dead_letter(MODEL, DeadLetter(message=b"\xff").SerializeToString())

    listing = await running.service.ListDeadLetters(pb.ListDeadLettersRequest(), CONTEXT)
    newest, oldest = listing.dead_letters
    assert (newest.name, newest.request) == ("deadLetters/2", "")
    assert (oldest.name, oldest.request) == ("deadLetters/1", "tenants/team-a/requests/poison")

    async def resend(name: str) -> str:
        request = pb.ResendDeadLetterRequest(name=name)
        return (await running.service.ResendDeadLetter(request, CONTEXT)).request

    assert await resend("deadLetters/1") == "tenants/team-a/requests/poison-resent-1"
    assert await resend("deadLetters/1") == "tenants/team-a/requests/poison-resent-1"

    async def is_live_once() -> bool:
        names = [(r.name, r.background) for r in (await running.listed()).requests]
        return names == [("tenants/team-a/requests/poison-resent-1", True)]

    await eventually(is_live_once)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        await resend("deadLetters/2")
    with pytest.raises(ResourceNotFound, match="dead letter 3 not found"):
        await resend("deadLetters/3")
    assert ("deadLetters.resend", "deadLetters/1", "anonymous") in await running.audited()

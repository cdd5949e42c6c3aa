"""Output beyond what is reserved: asked for in time, waited for if refused, never made before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from headrace.bus import Bus
from headrace.clock import SystemClock
from headrace.errors import DeadlineExceeded, HeadraceError, InsufficientQuota
from headrace.internal.v1.access_pb2 import KeeperLoss, Limits, TenantRow
from headrace.internal.v1.quota_pb2 import LimitKind, QuotaRefusal, Reserve
from headrace.internal.v1.reports_pb2 import LocateResponse, ParkCause, ResumePoint
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord, Sampling
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.v1 import requests_pb2
from headrace_gateway.request.generation import Event, Failed, Queued, Tokens
from headrace_gateway.resume.outputs import RemoteOutput
from helpers.eventually import eventually
from helpers.gateway_actors import (
    MODEL,
    LeaderActor,
    RunningMesh,
    WorkerActor,
    leader,
    running_mesh,
    worker,
)
from helpers.scripted_keeper import LIMITED, FixedRows, ScriptedKeeper, scripted_keeper

IDS = [100 + i % 50 for i in range(2000)]
Decide = Callable[[Reserve], QuotaRefusal | None]


def refuse_beyond(output_tokens: int, kind: str = "TOKENS_PER_MINUTE") -> Decide:
    """Refuse more output; a minute's window for a moment only."""

    def decide(reserve: Reserve) -> QuotaRefusal | None:
        if reserve.output_tokens <= output_tokens:
            return None
        until_ms = round(SystemClock().unix_s() * 1000) + 100
        found = LimitKind.Value(f"LIMIT_KIND_{kind}")
        return QuotaRefusal(kind=found, limit=900, used=900, requested=512, retry_after_ms=until_ms)

    return decide


ENDLESS = refuse_beyond(10_000)


@dataclass
class Stage:
    """A gateway, and the ends of its protocols."""

    gateway: RunningMesh
    keeper: ScriptedKeeper
    leader: LeaderActor
    worker: WorkerActor

    async def run(self, slot: int, first: int, last: int) -> None:
        """The worker makes the tokens from `first` on, before `last`."""
        for begin in range(first, last, 100):
            await self.worker.run_on(slot, first=begin, ids=IDS[begin : min(begin + 100, last)])

    @property
    def totals(self) -> list[int]:
        """Of output, as they were asked for."""
        return [reserve.output_tokens for reserve in self.keeper.reserved]

    def points(self, cause: ParkCause.ValueType) -> list[ResumePoint]:
        """What was reported to the leader, of one cause."""
        return [p for message in self.leader.lost for p in message.points if p.cause == cause]

    async def fenced(self, attempt: int) -> ResumePoint:
        """The gateway's answer to a fence."""
        (point,) = (await self.leader.notify(fences={"r1": attempt})).points
        return point

    def made(self) -> int:
        return self.gateway.open_request("r1").output.output_tokens


@asynccontextmanager
async def stage(
    bus: Bus, decide: Decide = ENDLESS, rows: FixedRows = LIMITED
) -> AsyncIterator[Stage]:
    async with (
        scripted_keeper(bus, decide) as keeper,
        leader(bus) as leads,
        running_mesh(bus, rows=rows) as gateway,
        worker(gateway.address) as works,
    ):
        yield Stage(gateway, keeper, leads, works)


class Reading:
    """A reader of a generation, in the background."""

    def __init__(self, events: AsyncIterator[list[Event]]) -> None:
        self.events: list[Event] = []
        self.task = asyncio.create_task(self._read(events))

    async def _read(self, events: AsyncIterator[list[Event]]) -> None:
        async for some in events:
            self.events += some

    def ids(self, choice: int = 0) -> list[int]:
        mine = [e for e in self.events if isinstance(e, Tokens) and e.choice == choice]
        return [token for event in mine for token in event.token_ids]

    async def error(self) -> HeadraceError:
        await asyncio.wait_for(self.task, 5)
        last = self.events[-1]
        assert isinstance(last, Failed)
        return last.error


async def test_more_is_reserved_before_it_is_made_and_nothing_pauses(bus: Bus) -> None:
    async with stage(bus) as on:
        generation = await on.gateway.open("r1", max_tokens=1100)
        assert on.totals == [512]
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 383)
        await eventually(lambda: on.made() == 383)
        assert on.totals == [512]
        await on.run(slot, 383, 384)
        await eventually(lambda: on.totals == [512, 1024])
        await eventually(lambda: on.gateway.open_request("r1").output.budget == 1024)
        await on.run(slot, 384, 900)
        await eventually(lambda: on.totals == [512, 1024, 1100])
        await eventually(lambda: on.gateway.open_request("r1").output.budget == 1100)
        reading = Reading(generation.events())
        await on.run(slot, 900, 1100)
        await on.worker.end(slot, output_tokens=1100)
        await asyncio.wait_for(reading.task, 5)
        assert reading.ids() == IDS[:1100]
        assert len({reserve.reservation_id for reserve in on.keeper.reserved}) == 1
        assert {reserve.input_tokens for reserve in on.keeper.reserved} == {3}
        assert on.leader.lost == []


async def test_a_refusal_for_the_minute_stops_it_until_there_is_more(bus: Bus) -> None:
    async with stage(bus, refuse_beyond(512)) as on:
        generation = await on.gateway.open("r1", max_tokens=600)
        reading = Reading(generation.events())
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 600)
        quota, lost = ParkCause.PARK_CAUSE_QUOTA, ParkCause.PARK_CAUSE_LOST
        await eventually(lambda: len(on.points(quota)) == 1)
        assert on.made() == 512
        await eventually(lambda: on.worker.cancelled == [slot])
        assert (await on.fenced(1)).cause == quota
        await eventually(lambda: Queued(waits_for_quota=True) in reading.events)
        location = await on.gateway.mesh.directory.locate("r1")
        assert location.status().state == requests_pb2.REQUEST_STATE_PAUSED
        on.keeper.decide = ENDLESS
        granted = ParkCause.PARK_CAUSE_QUOTA_GRANTED
        await eventually(lambda: len(on.points(granted)) == 1)
        point = await on.fenced(2)
        assert point.cause == lost
        assert list(point.progress[0].output_ids) == IDS[:512]
        assert on.points(lost) == []
        again = await on.worker.start("r1", attempt=3)
        await on.run(again, 512, 600)
        await on.worker.end(again, output_tokens=600)
        await asyncio.wait_for(reading.task, 5)
        assert reading.ids() == IDS[:600]
        assert max(on.totals) == 600


async def test_a_reader_at_another_gateway_gets_that_it_waits(bus: Bus) -> None:
    async with stage(bus, refuse_beyond(512)) as on:
        await on.gateway.open("r1", max_tokens=600)
        remote = await RemoteOutput.reach(on.gateway.address, "r1", secret=DeliverySecret(None))
        reading = Reading(remote.events())
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 600)
        await eventually(lambda: Queued(waits_for_quota=True) in reading.events)
        on.keeper.decide = ENDLESS
        await eventually(lambda: len(on.points(ParkCause.PARK_CAUSE_QUOTA_GRANTED)) == 1)
        await on.fenced(2)
        again = await on.worker.start("r1", attempt=3)
        await on.run(again, 512, 600)
        await on.worker.end(again, output_tokens=600)
        await asyncio.wait_for(reading.task, 5)
        assert reading.ids() == IDS[:600]
        await remote.abandon()


async def test_a_readers_place_in_the_queue_is_sent_to_another_gateway(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        await gateway.open("r1")
        remote = await RemoteOutput.reach(gateway.address, "r1", secret=DeliverySecret(None))
        reading = Reading(remote.events())
        for place in (Queued(3, 1.5), Queued(0)):
            gateway.open_request("r1").report_queued(place)
            await eventually(lambda place=place: reading.events[-1:] == [place])
        reading.task.cancel()
        await remote.abandon()


async def test_the_choices_of_a_request_share_what_is_reserved(bus: Bus) -> None:
    async with stage(bus, refuse_beyond(512)) as on:
        await on.gateway.open("r1", n=2, max_tokens=400)
        slots = [await on.worker.start("r1", attempt=1, choice=choice) for choice in (0, 1)]
        for begin in range(0, 400, 100):
            for slot in slots:
                await on.run(slot, begin, begin + 100)
        await eventually(lambda: set(on.worker.cancelled) == set(slots))
        assert on.made() == 512
        await eventually(lambda: len(on.points(ParkCause.PARK_CAUSE_QUOTA)) == 1)
        (point,) = on.points(ParkCause.PARK_CAUSE_QUOTA)
        assert sum(len(choice.output_ids) for choice in point.progress) == 512


@pytest.mark.parametrize("kind", ["TOKENS_PER_DAY", "BUDGET_PER_MONTH"])
async def test_a_refusal_for_the_day_ends_it_with_all_that_was_reserved(
    bus: Bus, kind: str
) -> None:
    async with stage(bus, refuse_beyond(512, kind)) as on:
        generation = await on.gateway.open("r1", max_tokens=600)
        reading = Reading(generation.events())
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 500)
        await eventually(lambda: on.totals == [512, 600])
        assert not reading.task.done(), "12 reserved tokens are left"
        await on.run(slot, 500, 600)
        assert isinstance(await reading.error(), InsufficientQuota)
        assert reading.ids() == IDS[:512]


async def test_a_silent_keeper_stops_it_unless_the_tenant_allows_that(bus: Bus) -> None:
    async with stage(bus) as on:
        await on.gateway.open("r1", max_tokens=600)
        on.keeper.answers.clear()
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 600)
        await eventually(lambda: len(on.points(ParkCause.PARK_CAUSE_QUOTA)) == 1)
        on.keeper.answers.set()
        await eventually(lambda: len(on.points(ParkCause.PARK_CAUSE_QUOTA_GRANTED)) == 1)


async def test_a_silent_keeper_does_not_stop_it_where_the_tenant_allows_that(bus: Bus) -> None:
    allow = KeeperLoss.KEEPER_LOSS_ALLOW
    limits = Limits(tokens_per_minute=1000)
    rows = FixedRows([TenantRow(tenant="default", limits=limits, on_keeper_loss=allow)])
    async with stage(bus, rows=rows) as on:
        await on.gateway.open("r1", max_tokens=600)
        on.keeper.answers.clear()
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 400)
        await eventually(lambda: on.gateway.open_request("r1").output.budget == 600)


async def test_its_deadline_ends_it_while_it_waits(bus: Bus) -> None:
    async with stage(bus, refuse_beyond(512)) as on:
        generation = await on.gateway.open("r1", max_tokens=600)
        reading = Reading(generation.events())
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 600)
        await eventually(lambda: len(on.points(ParkCause.PARK_CAUSE_QUOTA)) == 1)
        await on.leader.notify(ended={"r1": DeadlineExceeded("too late")})
        assert isinstance(await reading.error(), DeadlineExceeded)
        assert reading.ids() == IDS[:512]


async def test_nothing_is_asked_for_a_request_whose_client_has_left(bus: Bus) -> None:
    async with stage(bus, refuse_beyond(512)) as on:
        generation = await on.gateway.open("r1", max_tokens=600)
        slot = await on.worker.start("r1", attempt=1)
        await on.run(slot, 0, 600)
        await eventually(lambda: len(on.points(ParkCause.PARK_CAUSE_QUOTA)) == 1)
        await generation.abandon()
        await eventually(lambda: on.leader.has_settled(1))
        assert on.leader.settled[0].output_tokens == 512
        asked = len(on.keeper.reserved)
        await asyncio.sleep(0.3)  # Longer than a refusal lasts.
        assert len(on.keeper.reserved) <= asked + 1


async def test_a_gateway_that_takes_it_over_asks_before_it_takes_more(bus: Bus) -> None:
    async with stage(bus, refuse_beyond(1024)) as on:
        record = RequestRecord(
            request_id="r1",
            model=MODEL,
            n=1,
            gateway_id="gw",
            attempt=5,
            held_since_attempt=5,
            prompt_tokens=3,
            reservation_id="r1.0f",
            output_budget=512,
            tenant="default",
            sampling=Sampling(max_tokens=2000),
            progress=[ChoiceProgress(output_ids=IDS[:700])],
        )
        record.deadline.FromSeconds(round(SystemClock().unix_s()) + 60)
        on.leader.knows["r1"] = LocateResponse(found=True, record=record)
        await on.gateway.mesh.takeovers.open(record)
        assert (await on.fenced(5)).cause == ParkCause.PARK_CAUSE_QUOTA
        await eventually(lambda: on.totals[:1] == [1212])
        on.keeper.decide = ENDLESS
        await eventually(lambda: len(on.points(ParkCause.PARK_CAUSE_QUOTA_GRANTED)) == 1)
        assert on.keeper.reserved[-1].reservation_id == "r1.0f"
        assert (await on.fenced(6)).cause == ParkCause.PARK_CAUSE_LOST

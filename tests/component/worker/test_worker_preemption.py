"""A worker parks a request when its leader preempts it."""

from __future__ import annotations

from headrace.internal.v1.reports_pb2 import ParkCause
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor, has_tokens
from helpers.worker_actors import (
    ENDLESS,
    SchedulerActor,
    record,
    scripted,
    undisturbed,
    worker_here,
)


async def test_what_is_parked_comes_back_with_its_output_and_goes_on_as_if_nothing_had_been(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(step_s=0.01, max_slots=1)) as worker:
        worker_id = await scheduler.first_worker()
        long = record("a", gw, max_tokens=300)
        await scheduler.dispatch(worker_id, long)
        await has_tokens(gw, "a", 5)
        assert await scheduler.ask_to_park(worker_id, "a")
        await eventually(lambda: bool(scheduler.parked))
        (point,) = scheduler.parked
        assert (point.request_id, point.attempt) == ("a", 1)
        assert point.cause == ParkCause.PARK_CAUSE_PREEMPTED
        assert not point.HasField("error"), "it is no failure of the request's"
        made = list(point.progress[0].output_ids)
        assert made == undisturbed(long)[: len(made)]
        await eventually(lambda: scheduler.free_slots == 1)
        assert not gw.said("a").has_ended
        again = record("a", gw, max_tokens=300, attempt=2, progress=point.progress)
        assert await scheduler.dispatch(worker_id, again) == []
        await eventually(lambda: gw.said("a", attempt=2).has_ended, within_s=20)
        assert made + gw.said("a", attempt=2).token_ids == undisturbed(long)
        worker.check_integrity()


async def test_what_is_not_here_and_a_leader_of_the_past_move_nothing(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url) as worker:
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS, attempt=2), epoch=3)
        await has_tokens(gw, "a", 1, attempt=2)
        assert not await scheduler.ask_to_park(worker_id, "b")
        assert not await scheduler.ask_to_park(worker_id, "a", attempt=1, epoch=3)
        assert not await scheduler.ask_to_park(worker_id, "a", attempt=2, epoch=2)
        assert scheduler.parked == []
        assert await scheduler.ask_to_park(worker_id, "a", attempt=2, epoch=3)
        assert not await scheduler.ask_to_park(worker_id, "a", attempt=2, epoch=3)
        await eventually(lambda: worker.is_idle)

"""How a worker stops."""

from __future__ import annotations

import signal
from pathlib import Path

from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause
from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.internal.v1.request_pb2 import ChoiceProgress
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor, has_tokens
from helpers.worker_actors import (
    ENDLESS,
    SchedulerActor,
    record,
    scripted,
    undisturbed,
    worker_here,
    worker_process,
)


async def test_a_stopping_worker_finishes_what_runs_and_accepts_nothing_new(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor, tmp_path: Path
) -> None:
    async with worker_process(nats_url, tmp_path, scripted_step_s=0.005, drain_s=20) as worker:
        worker_id = await scheduler.first_worker()
        request = record("a", gw, max_tokens=200)
        await scheduler.dispatch(worker_id, request)
        await has_tokens(gw, "a", 5)
        worker.send(signal.SIGTERM)
        await eventually(lambda: scheduler.last.draining)
        assert not scheduler.last.leaving
        (refusal,) = await scheduler.dispatch(worker_id, record("b", gw))
        assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_DRAINING
        assert await worker.exit_status() == 0
    assert gw.said("a").token_ids == undisturbed(request)
    assert gw.said("a").has_ended
    assert scheduler.parked == []
    await eventually(lambda: scheduler.last.leaving)
    assert not any(r.leaving for r in scheduler.reports[:-1])


async def test_what_does_not_finish_in_the_time_of_a_drain_is_parked(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor, tmp_path: Path
) -> None:
    async with worker_process(nats_url, tmp_path, scripted_step_s=0.005, drain_s=0.3) as worker:
        worker_id = await scheduler.first_worker()
        short, long = record("a", gw), record("b", gw, max_tokens=3000)
        await scheduler.dispatch(worker_id, short, long)
        await has_tokens(gw, "b", 5)
        worker.send(signal.SIGTERM)
        assert await worker.exit_status() == 0
    (point,) = scheduler.parked
    assert (point.request_id, point.cause) == ("b", ParkCause.PARK_CAUSE_DRAIN)
    (progress,) = point.progress
    made = list(progress.output_ids)
    assert made == undisturbed(long)[: len(made)]
    assert gw.said("a").has_ended
    assert gw.open_streams == 0
    await eventually(lambda: scheduler.last.leaving)


async def test_more_than_a_message_holds_is_parked_in_several(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    made = [300] * 60_000
    async with worker_here(nats_url, scripted(step_s=0.05, max_slots=12)):
        requests = [
            record(
                f"r{i}",
                gw,
                attempt=2,
                max_tokens=ENDLESS,
                progress=[ChoiceProgress(output_ids=made)],
            )
            for i in range(12)
        ]
        worker_id = await scheduler.first_worker()
        for request in requests:
            await scheduler.dispatch(worker_id, request)
    assert {p.request_id for p in scheduler.parked} == {r.request_id for r in requests}
    assert scheduler.park_requests > 1


async def test_a_worker_that_holds_nothing_leaves_at_once(
    nats_url: str, scheduler: SchedulerActor, tmp_path: Path
) -> None:
    async with worker_process(nats_url, tmp_path) as worker:
        await scheduler.first_worker()
        worker.send(signal.SIGINT)
        assert await worker.exit_status(within_s=3) == 0
    await eventually(lambda: scheduler.last.leaving)
    assert scheduler.park_requests == 0


async def test_a_killed_worker_leaves_a_broken_stream_and_silence(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor, tmp_path: Path
) -> None:
    async with worker_process(nats_url, tmp_path, scripted_step_s=0.002) as worker:
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=3000))
        await has_tokens(gw, "a", 5)
        worker.send(signal.SIGKILL)
        await eventually(lambda: gw.open_streams == 0)
    assert not scheduler.last.leaving
    assert not gw.said("a").has_ended

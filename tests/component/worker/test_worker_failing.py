"""What a worker does when its engine, or the broker, fails."""

from __future__ import annotations

import threading

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.testing.nats_server import NatsServer
from headrace_worker.engine.backends.scripted import ScriptedFaults
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor, has_tokens
from helpers.worker_actors import (
    ENDLESS,
    SchedulerActor,
    error_reason,
    record,
    scripted,
    undisturbed,
    worker_here,
)

POISON = 299


def poisoned(request_id: str, gw: GatewayActor, *, n: int = 1) -> RequestRecord:
    return record(request_id, gw, prompt_ids=[5, POISON], n=n)


async def test_a_sequence_that_the_engine_cannot_compute_is_parked_and_its_neighbours_finish(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    engine = scripted(faults=ScriptedFaults(fail_prompts_containing=POISON))
    async with worker_here(nats_url, engine) as worker:
        worker_id = await scheduler.first_worker()
        neighbour = record("b", gw, max_tokens=300)
        await scheduler.dispatch(worker_id, neighbour)
        await has_tokens(gw, "b", 5)
        await scheduler.dispatch(worker_id, poisoned("a", gw, n=2))
        await eventually(lambda: bool(scheduler.parked))
        (point,) = scheduler.parked
        assert (point.request_id, point.attempt) == ("a", 1)
        assert error_reason(point.error) == "ENGINE_FAILED"
        assert f"the prompt has token {POISON}" in point.error.message
        assert not gw.said("a").has_ended, "the scheduler decides what follows"
        await eventually(lambda: gw.said("b").has_ended)
        assert gw.said("b").token_ids == undisturbed(neighbour)
        await eventually(lambda: scheduler.free_slots == 8)
        worker.check_integrity()


async def test_a_sequence_that_fails_late_is_parked_with_all_it_has(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    engine = scripted(faults=ScriptedFaults(fail_at_output_index=7))
    async with worker_here(nats_url, engine):
        request = record("a", gw)
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await eventually(lambda: bool(scheduler.parked))
        (progress,) = scheduler.parked[0].progress
        assert list(progress.output_ids) == undisturbed(request)[:7]


async def test_what_the_engine_refuses_after_all_is_parked_with_the_reason(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    engine = scripted(faults=ScriptedFaults(refuse_all=True))
    async with worker_here(nats_url, engine):
        await scheduler.dispatch(await scheduler.first_worker(), record("a", gw))
        await eventually(lambda: bool(scheduler.parked))
        assert "this engine is configured to refuse everything" in scheduler.parked[0].error.message


async def test_a_worker_whose_engine_dies_parks_all_it_has_and_exits_with_1(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    def die() -> None:
        raise RuntimeError("made to fail")

    async with worker_here(
        nats_url,
        scripted(faults=ScriptedFaults(crash_after_steps=40), crash=die),
        drain_s=30,
    ) as worker:
        request = record("a", gw, max_tokens=ENDLESS)
        await scheduler.dispatch(await scheduler.first_worker(), request)
        assert await worker.exit_status() == 1
    (point,) = scheduler.parked
    (progress,) = point.progress
    assert list(progress.output_ids) == undisturbed(record("a", gw, max_tokens=40))
    await eventually(lambda: scheduler.last.leaving)


async def test_an_engine_that_dies_while_the_worker_drains_ends_the_drain(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    draining = threading.Event()

    def die() -> None:
        assert draining.wait(10)
        raise RuntimeError("made to fail")

    async with worker_here(
        nats_url,
        scripted(faults=ScriptedFaults(crash_prompts_containing=POISON), crash=die),
        drain_s=50,
    ) as worker:
        await scheduler.dispatch(await scheduler.first_worker(), poisoned("a", gw))
        worker.app.stop()
        await eventually(lambda: scheduler.last.draining)
        draining.set()
        assert await worker.exit_status() == 1
    assert [p.request_id for p in scheduler.parked] == ["a"]


async def test_tokens_flow_while_the_broker_is_away_and_reports_resume_when_it_is_back(
    nats: NatsServer, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats.url, scripted(step_s=0.005)) as worker:
        request = record("a", gw, max_tokens=ENDLESS)
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await has_tokens(gw, "a", 5)
        await nats.kill()
        made = len(gw.said("a").tokens)
        await has_tokens(gw, "a", made + 50)
        await eventually(lambda: worker.app.why_not_ready == "out of reach of NATS")
        seen = len(scheduler.reports)
        await nats.start()
        await eventually(lambda: len(scheduler.reports) > seen, within_s=15)
        assert scheduler.running == {"a": 1}
        assert await scheduler.dispatch(scheduler.last.worker_id, record("b", gw)) == []
        await eventually(lambda: gw.said("b").has_ended)
        assert gw.streams == 1

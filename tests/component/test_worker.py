"""A worker among a real broker, a gateway and a scheduler: what each may rely on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.bus.jetstream import JetStreamBus
from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause
from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord, Sampling
from headrace.testing.nats_server import NatsServer
from headrace.v1.common_pb2 import FinishReason
from headrace_worker.engine.scripted import ScriptedFaults
from helpers.eventually import eventually
from helpers.worker_actors import (
    ENDLESS,
    GatewayActor,
    SchedulerActor,
    deadline_in,
    error_reason,
    gateway,
    record,
    scripted,
    undisturbed,
    worker_here,
    worker_process,
)

CANCELLED, DEADLINE_EXCEEDED = 1, 4
POISON = 299


@pytest.fixture
async def gw() -> AsyncIterator[GatewayActor]:
    async with gateway() as actor:
        yield actor


@pytest.fixture
async def scheduler(bus: JetStreamBus) -> SchedulerActor:
    actor = SchedulerActor(bus)
    await actor.start()
    return actor


async def has_tokens(gw: GatewayActor, request_id: str, count: int, *, attempt: int = 1) -> None:
    said = gw.said(request_id, attempt=attempt)
    await eventually(lambda: len(said.tokens) >= count)


# The way of a request


async def test_tokens_come_by_index_and_each_choice_has_one_end(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    request = record("a", gw, n=3, max_tokens=20)
    async with worker_here(nats_url):
        assert await scheduler.dispatch(await scheduler.first_worker(), request) == []
        for choice in range(3):
            said = gw.said("a", choice)
            await eventually(lambda said=said: said.has_ended)
            assert said.token_ids == undisturbed(request, choice)
            (ending,) = said.endings
            assert ending.finish_reason == FinishReason.FINISH_REASON_LENGTH
            assert (ending.output_tokens, ending.HasField("error")) == (20, False)


async def test_the_report_after_an_end_has_the_slot_free_and_says_which_dispatch_it_counts(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, report_interval_s=1.5):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw), epoch=3, number=17)
        await eventually(lambda: gw.said("a").has_ended)
        ended_s = time.monotonic()
        await eventually(lambda: scheduler.last.models[0].dispatch_number == 17)
        assert scheduler.heard_at_s[-1] - ended_s < 0.5, "it waited for its beat"
        served = scheduler.last.models[0]
        assert (served.free_slots, served.total_slots, len(served.running)) == (8, 8, 0)
        assert served.dispatch_epoch == 3


async def test_what_runs_is_in_the_reports_with_its_attempt(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        endless = record("a", gw, n=2, attempt=5, max_tokens=ENDLESS)
        await scheduler.dispatch(worker_id, endless)
        await eventually(lambda: scheduler.running == {"a": 5})
        assert scheduler.free_slots == 6
        assert len({r.number for r in scheduler.reports}) == len(scheduler.reports)


async def test_a_dispatch_that_is_said_again_late_does_not_hide_a_later_one(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw), number=1)
        await scheduler.dispatch(worker_id, record("b", gw), number=2)
        await scheduler.dispatch(worker_id, record("a", gw), number=1)
        seen = len(scheduler.reports)
        await eventually(lambda: len(scheduler.reports) > seen + 1)
        assert scheduler.last.models[0].dispatch_number == 2


async def test_a_dispatch_said_twice_runs_once(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        request = record("a", gw, max_tokens=100)
        for _ in range(2):
            assert await scheduler.dispatch(worker_id, request) == []
        await eventually(lambda: gw.said("a").has_ended)
        assert gw.said("a").openings == 1
        assert gw.said("a").token_ids == undisturbed(request)


async def test_a_slow_reader_gets_every_token(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(step_s=0)):
        worker_id = await scheduler.first_worker()
        requests = [record(f"r{i}", gw, max_tokens=3000) for i in range(8)]
        await scheduler.dispatch(worker_id, *requests)
        for request in requests:
            said = gw.said(request.request_id)
            await eventually(lambda said=said: said.has_ended, within_s=20)
            assert said.token_ids == undisturbed(request)


# Attempts


async def test_a_newer_attempt_replaces_the_older_and_goes_on_after_its_progress(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(max_slots=1)):
        worker_id = await scheduler.first_worker()
        first = record("a", gw, max_tokens=400)
        await scheduler.dispatch(worker_id, first)
        await has_tokens(gw, "a", 5)
        made = gw.said("a").token_ids[:5]
        progress = [ChoiceProgress(choice=0, output_ids=made)]
        again = record("a", gw, max_tokens=400, attempt=2, progress=progress)
        assert await scheduler.dispatch(worker_id, again) == [], "its own slot is free for it"
        await eventually(lambda: gw.said("a", attempt=2).has_ended)
        said = gw.said("a", attempt=2)
        assert said.first_index == 5
        assert made + said.token_ids == undisturbed(first)
        assert said.endings[0].output_tokens == 400
        assert not gw.said("a").has_ended, "the older attempt is not spoken of"


async def test_an_older_attempt_does_not_replace_a_newer(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, attempt=2, max_tokens=ENDLESS))
        assert await scheduler.dispatch(worker_id, record("a", gw, attempt=1)) == []
        await has_tokens(gw, "a", 50, attempt=2)
        assert gw.said("a", attempt=1).openings == 0


async def test_a_choice_that_is_at_its_end_is_not_run_again(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    finished = ChoiceProgress(
        choice=0, output_ids=[50, 51], finish_reason=FinishReason.FINISH_REASON_STOP
    )
    async with worker_here(nats_url):
        request = record("a", gw, n=2, attempt=2, progress=[finished])
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await eventually(lambda: gw.said("a", 1, attempt=2).has_ended)
        assert gw.said("a", 1, attempt=2).token_ids == undisturbed(request, 1)
        assert gw.said("a", 0, attempt=2).openings == 0


async def test_an_attempt_whose_tokens_were_all_made_says_only_its_end(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    made = undisturbed(record("a", gw))
    async with worker_here(nats_url):
        request = record("a", gw, attempt=2, progress=[ChoiceProgress(output_ids=made)])
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await eventually(lambda: gw.said("a", attempt=2).has_ended)
        said = gw.said("a", attempt=2)
        assert (said.tokens, said.endings[0].output_tokens) == ({}, 20)


# Cancelling


async def test_a_cancelled_slot_is_free_within_a_step_and_nothing_more_is_said_of_it(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, report_interval_s=1.5) as worker:
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS))
        await has_tokens(gw, "a", 5)
        gw.cancel("a")
        seen = len(scheduler.reports)
        await eventually(lambda: len(scheduler.reports) > seen)
        assert (scheduler.free_slots, scheduler.running) == (8, {})
        # Another one's whole way, on the same slot: had the first still run, it would be heard.
        await scheduler.dispatch(worker_id, record("b", gw, max_tokens=50))
        await eventually(lambda: gw.said("b").has_ended)
        assert gw.bound_slots == []
        assert not gw.said("a").has_ended
        worker.app.check_integrity()


async def test_slots_of_a_stream_are_given_out_again_and_never_mixed_up(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(step_s=0.001, max_slots=4)) as worker:
        worker_id = await scheduler.first_worker()
        for turn in range(40):
            left, stays = record(f"x{turn}", gw, max_tokens=ENDLESS), record(f"y{turn}", gw)
            await scheduler.dispatch(worker_id, left, stays)
            await has_tokens(gw, left.request_id, 2)
            gw.cancel(left.request_id)
            said = gw.said(stays.request_id)
            await eventually(lambda said=said: said.has_ended)
            assert said.token_ids == undisturbed(stays)
            assert not gw.said(left.request_id).has_ended
        assert gw.highest_slot < 8
        worker.app.check_integrity()


async def test_one_choice_can_be_cancelled_while_the_others_go_on(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        request = record("a", gw, n=2, max_tokens=300)
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await has_tokens(gw, "a", 5)
        gw.cancel("a", 0)
        await eventually(lambda: gw.said("a", 1).has_ended)
        assert gw.said("a", 1).token_ids == undisturbed(request, 1)
        assert not gw.said("a", 0).has_ended


@pytest.mark.parametrize(
    ("code", "finish", "reason"),
    [
        (CANCELLED, FinishReason.FINISH_REASON_CANCELLED, "CANCELLED"),
        (DEADLINE_EXCEEDED, FinishReason.FINISH_REASON_ERROR, "DEADLINE_EXCEEDED"),
    ],
)
async def test_the_schedulers_cancellation_is_told_to_the_gateway_as_an_end(
    nats_url: str,
    scheduler: SchedulerActor,
    gw: GatewayActor,
    code: int,
    finish: FinishReason.ValueType,
    reason: str,
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, n=2, max_tokens=ENDLESS))
        await has_tokens(gw, "a", 5)
        assert await scheduler.cancel(worker_id, "a", code=code)
        for choice in range(2):
            await eventually(lambda choice=choice: gw.said("a", choice).has_ended)
            (ending,) = gw.said("a", choice).endings
            assert ending.finish_reason == finish
            assert error_reason(ending.error) == reason
        await eventually(lambda: scheduler.free_slots == 8)


async def test_cancelling_what_does_not_run_here_finds_nothing(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        assert not await scheduler.cancel(worker_id, "nobody", code=CANCELLED)
        await scheduler.dispatch(worker_id, record("a", gw, attempt=2, max_tokens=ENDLESS))
        assert not await scheduler.cancel(worker_id, "a", attempt=1, code=CANCELLED)
        await has_tokens(gw, "a", 20, attempt=2)


async def test_a_deadline_that_passes_while_it_runs_is_its_end(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        late = record("a", gw, max_tokens=ENDLESS, deadline=deadline_in(0.2))
        await scheduler.dispatch(worker_id, late, record("b", gw, max_tokens=300))
        await eventually(lambda: gw.said("a").has_ended)
        (ending,) = gw.said("a").endings
        assert error_reason(ending.error) == "DEADLINE_EXCEEDED"
        assert ending.output_tokens == len(gw.said("a").tokens) > 0
        await eventually(lambda: gw.said("b").has_ended)


# Delivery


async def test_a_broken_stream_is_opened_again_and_all_that_is_unacknowledged_is_said_again(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.acknowledges = False
    async with worker_here(nats_url):
        ended, runs = record("a", gw, max_tokens=10), record("b", gw, max_tokens=600)
        await scheduler.dispatch(await scheduler.first_worker(), ended, runs)
        await eventually(lambda: gw.said("a").has_ended)
        await has_tokens(gw, "b", 30)
        gw.break_streams()
        await eventually(lambda: gw.streams == 2 and len(gw.said("a").endings) == 2)
        await eventually(lambda: gw.said("b").has_ended)
        for request in (ended, runs):
            said = gw.said(request.request_id)
            assert said.openings == 2
            assert said.token_ids == undisturbed(request)
        first, second = gw.said("a").endings
        assert first.output_tokens == second.output_tokens == 10
        gw.acknowledge_all()


async def test_what_is_acknowledged_is_not_said_again(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw), record("b", gw, max_tokens=ENDLESS))
        await eventually(lambda: gw.said("a").has_ended)
        gw.break_streams()
        await eventually(lambda: gw.said("b").openings == 2)
        assert gw.said("a").openings == 1


async def test_a_gateway_that_comes_back_in_time_hears_everything(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        request = record("a", gw, max_tokens=1000)
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await has_tokens(gw, "a", 5)
        await gw.stop()
        await gw.start()
        await eventually(lambda: gw.said("a").has_ended, within_s=10)
        assert gw.said("a").token_ids == undisturbed(request)
        assert scheduler.parked == []


async def test_requests_of_a_gateway_out_of_reach_are_parked_until_the_leader_answers(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    scheduler.answers_parks = False
    async with gateway("other") as other, worker_here(nats_url, orphan_grace_s=0.2) as worker:
        worker_id = await scheduler.first_worker()
        request = record("a", gw, attempt=3, max_tokens=ENDLESS)
        undisturbed_one = record("b", other, max_tokens=1000)
        await scheduler.dispatch(worker_id, request, undisturbed_one)
        await has_tokens(gw, "a", 5, attempt=3)
        await gw.stop()
        await eventually(lambda: scheduler.park_requests >= 2, within_s=15)
        scheduler.answers_parks = True
        await eventually(lambda: bool(scheduler.parked))
        (point,) = scheduler.parked
        assert (point.request_id, point.attempt) == ("a", 3)
        assert point.cause == ParkCause.PARK_CAUSE_ORPHANED
        (progress,) = point.progress
        heard = gw.said("a", attempt=3).token_ids
        assert list(progress.output_ids)[: len(heard)] == heard
        assert progress.finish_reason == FinishReason.FINISH_REASON_UNSPECIFIED
        await eventually(lambda: "a" not in scheduler.running)
        await eventually(lambda: other.said("b").has_ended)
        assert other.said("b").token_ids == undisturbed(undisturbed_one)
        worker.app.check_integrity()


async def test_an_ended_request_whose_gateway_never_comes_back_is_not_kept_for_ever(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.acknowledges = False
    async with worker_here(nats_url, orphan_grace_s=0.2) as worker:
        await scheduler.dispatch(await scheduler.first_worker(), record("a", gw))
        await eventually(lambda: gw.said("a").has_ended)
        assert not worker.is_idle
        await gw.stop()
        await eventually(lambda: worker.is_idle, within_s=10)
        assert scheduler.parked == []


async def test_a_listener_that_is_no_gateway_counts_as_out_of_reach(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.hangs_up = True
    async with worker_here(nats_url, orphan_grace_s=0.5):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS))
        await eventually(lambda: bool(scheduler.parked), within_s=10)
        assert scheduler.parked[0].cause == ParkCause.PARK_CAUSE_ORPHANED


async def test_a_gateway_that_was_given_up_is_reached_anew_by_the_next_request(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, orphan_grace_s=0.2):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS))
        await has_tokens(gw, "a", 1)
        await gw.stop()
        await eventually(lambda: bool(scheduler.parked), within_s=10)
        await gw.start()
        await scheduler.dispatch(worker_id, record("b", gw))
        await eventually(lambda: gw.said("b").has_ended)


# Refusing


async def test_a_request_for_which_there_is_no_room_is_refused(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(max_slots=2)):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS))
        (refusal,) = await scheduler.dispatch(worker_id, record("b", gw, n=2))
        assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL
        assert (refusal.request_id, refusal.message) == ("b", "2 slots wanted, 1 free")
        assert await scheduler.dispatch(worker_id, record("c", gw)) == []


async def test_a_batch_is_accepted_as_far_as_it_goes(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(max_slots=2)):
        worker_id = await scheduler.first_worker()
        batch = [record(name, gw, max_tokens=200) for name in "abc"]
        (refusal,) = await scheduler.dispatch(worker_id, *batch)
        assert refusal.request_id == "c"
        await eventually(lambda: gw.said("a").has_ended and gw.said("b").has_ended)


@pytest.mark.parametrize(
    ("fields", "cause", "message"),
    [
        ({"weights_digest": "w2"}, "WRONG_MODEL", "serves toy with weights scripted-1, not toy wi"),
        ({"model": "big"}, "WRONG_MODEL", "serves toy with weights scripted-1, not big with"),
        ({"prompt_ids": []}, "INVALID", "the prompt has no tokens"),
        ({"n": 9}, "INVALID", "9 choices do not fit 8 slots"),
        ({"prompt_ids": [4_000_000_000]}, "INVALID", "a token id of 4000000000 is outside the voc"),
        ({"sampling": Sampling(max_tokens=0)}, "INVALID", "max_tokens is 0"),
    ],
)
async def test_what_could_never_run_here_is_refused_with_its_numbers(
    nats_url: str,
    scheduler: SchedulerActor,
    gw: GatewayActor,
    fields: dict[str, Any],
    cause: str,
    message: str,
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        (refusal,) = await scheduler.dispatch(worker_id, record("a", gw, **fields))
        expected = DispatchRefusalCause.Value(f"DISPATCH_REFUSAL_CAUSE_{cause}")
        assert refusal.cause == expected
        assert message in refusal.message


async def test_a_deposed_leader_is_refused_and_what_it_asked_for_does_not_run(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw), epoch=5)
        (refusal,) = await scheduler.dispatch(worker_id, record("b", gw), epoch=4, number=99)
        assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_STALE_LEADER
        assert refusal.message == "epoch 4 is older than 5"
        await eventually(lambda: gw.said("a").has_ended)
        assert gw.said("b").openings == 0
        await eventually(lambda: scheduler.last.models[0].dispatch_epoch == 5)


# Failing


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
        worker.app.check_integrity()


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
        assert "this engine is told to refuse everything" in scheduler.parked[0].error.message


async def test_a_worker_whose_engine_dies_parks_all_it_has_and_exits_with_1(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    def die() -> None:
        raise RuntimeError("told to die")

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
        raise RuntimeError("told to die")

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
    async with worker_here(nats.url, scripted(step_s=0.005)):
        request = record("a", gw, max_tokens=ENDLESS)
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await has_tokens(gw, "a", 5)
        await nats.kill()
        made = len(gw.said("a").tokens)
        await has_tokens(gw, "a", made + 50)
        seen = len(scheduler.reports)
        await nats.start()
        await eventually(lambda: len(scheduler.reports) > seen, within_s=15)
        assert scheduler.running == {"a": 1}
        assert await scheduler.dispatch(scheduler.last.worker_id, record("b", gw)) == []
        await eventually(lambda: gw.said("b").has_ended)
        assert gw.streams == 1


# Leaving


async def test_a_worker_told_to_stop_finishes_what_runs_and_takes_nothing_new(
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

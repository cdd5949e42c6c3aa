"""Who may stop a request on a worker, and what is said of it then."""

from __future__ import annotations

import pytest

from headrace.v1.common_pb2 import FinishReason
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor, has_tokens
from helpers.worker_actors import (
    ENDLESS,
    SchedulerActor,
    deadline_in,
    error_reason,
    record,
    scripted,
    undisturbed,
    worker_here,
)

CANCELLED, DEADLINE_EXCEEDED = 1, 4


async def test_a_cancelled_slot_is_free_within_a_step_and_nothing_more_is_sent_of_it(
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
        worker.check_integrity()


async def test_slots_of_a_stream_are_bound_again_and_never_mixed_up(
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
        worker.check_integrity()


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
async def test_the_schedulers_cancellation_reaches_the_gateway_as_an_end(
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


async def test_what_a_step_made_while_its_sequence_was_cancelled_is_not_sent(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.acknowledges = False
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        for turn in range(10):
            request_id = f"r{turn}"
            await scheduler.dispatch(worker_id, record(request_id, gw, max_tokens=ENDLESS))
            await has_tokens(gw, request_id, 3)
            await scheduler.cancel(worker_id, request_id, code=CANCELLED)
            seen = len(gw.message_tokens)
            await scheduler.dispatch(worker_id, record(f"s{turn}", gw, max_tokens=5))
            await eventually(lambda turn=turn: gw.said(f"s{turn}").has_ended)
            assert len(gw.message_tokens) > seen
            (ending,) = gw.said(request_id).endings
            assert ending.output_tokens == len(gw.said(request_id).tokens)
        gw.acknowledge_all()


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


async def test_a_clock_that_was_set_ends_nothing(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        ahead = record("a", gw, max_tokens=300, deadline=deadline_in(-3600))
        behind = record("b", gw, max_tokens=ENDLESS, deadline=deadline_in(3600))
        endless = record("c", gw, max_tokens=300, deadline=deadline_in(-3600))
        left = (60.0, 0.2, float("inf"))
        await scheduler.dispatch(worker_id, ahead, behind, endless, seconds_left=left)
        await eventually(lambda: all(gw.said(name).has_ended for name in "abc"))
        assert gw.said("a").token_ids == undisturbed(ahead)
        assert gw.said("c").token_ids == undisturbed(endless)
        (ending,) = gw.said("b").endings
        assert error_reason(ending.error) == "DEADLINE_EXCEEDED"

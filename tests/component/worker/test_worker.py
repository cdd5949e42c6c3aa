"""A worker among a real broker, a gateway and a scheduler: requests and their attempts."""

from __future__ import annotations

import time

from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace.v1.common_pb2 import FinishReason
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


async def test_the_report_after_an_end_has_the_slot_free_and_names_the_dispatch_it_counts(
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


async def test_a_dispatch_that_is_repeated_late_does_not_hide_a_later_one(
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


async def test_a_repeated_dispatch_runs_once(
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
        assert not gw.said("a").has_ended, "nothing is sent of the older attempt"


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


async def test_an_attempt_whose_tokens_were_all_made_sends_only_its_end(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    made = undisturbed(record("a", gw))
    async with worker_here(nats_url):
        request = record("a", gw, attempt=2, progress=[ChoiceProgress(output_ids=made)])
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await eventually(lambda: gw.said("a", attempt=2).has_ended)
        said = gw.said("a", attempt=2)
        assert (said.tokens, said.endings[0].output_tokens) == ({}, 20)


async def test_an_attempt_sends_logprobs_of_its_output_and_of_a_prompt_without_output(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        whole, resumed = record("a", gw), record("a", gw, attempt=2)
        for request in (whole, resumed):
            request.sampling.logprobs, request.sampling.prompt_logprobs = 2, 0
        await scheduler.dispatch(worker_id, whole)
        await eventually(lambda: gw.said("a").has_ended)
        resumed.progress.add(choice=0, output_ids=gw.said("a").token_ids[:15])
        await scheduler.dispatch(worker_id, resumed)
        first, second = gw.said("a"), gw.said("a", attempt=2)
        await eventually(lambda: second.has_ended)
    assert sorted(first.logprobs) == list(range(20))
    assert len(first.prompt_logprobs) == len(whole.prompt_ids) - 1
    assert second.logprobs == {index: first.logprobs[index] for index in range(15, 20)}
    assert len(second.prompt_logprobs) == 0

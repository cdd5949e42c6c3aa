"""What a worker refuses, and why."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidStructure
from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause
from headrace.internal.v1.request_pb2 import Grammar, Sampling, TokenRun
from headrace.rpc.status import from_status
from headrace.v1.common_pb2 import Structure
from helpers.eventually import eventually
from helpers.grammars import held_engine
from helpers.listening_gateway import GatewayActor
from helpers.worker_actors import (
    ENDLESS,
    SchedulerActor,
    record,
    scripted,
    worker_here,
)


async def test_a_request_for_which_there_is_no_room_is_refused(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(max_slots=2)):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS))
        (refusal,) = await scheduler.dispatch(worker_id, record("b", gw, n=2))
        assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL
        assert (refusal.request_id, refusal.message) == ("b", "2 slots needed, 1 free")
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
        (
            {"adapter": "poet", "adapter_digest": "a1"},
            "WRONG_MODEL",
            "has no adapter poet with digest a1",
        ),
        ({"prompt_ids": []}, "INVALID", "the prompt has no tokens"),
        ({"n": 9}, "INVALID", "9 choices do not fit 8 slots"),
        ({"prompt_ids": [4_000_000_000]}, "INVALID", "4000000000 is outside the vocabulary"),
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


async def test_a_deposed_leader_is_refused_and_its_requests_do_not_run(
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


async def test_what_is_no_grammar_ends_with_a_refusal_that_is_not_retried(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    sampling = Sampling(max_tokens=20, top_p=1, repetition_penalty=1)
    sampling.grammar.CopyFrom(Grammar(structure=Structure(regex="(unclosed"), field="guided_regex"))
    async with worker_here(nats_url, held_engine()):
        worker_id = await scheduler.first_worker()
        bad = record("a", gw, weights_digest="random", sampling=sampling, n=2)
        good = record("b", gw, weights_digest="random")
        assert await scheduler.dispatch(worker_id, bad, good) == []
        await eventually(lambda: gw.said("a").has_ended and gw.said("b").has_ended)
        error = from_status(gw.said("a").endings[0].error)
        assert isinstance(error, InvalidStructure)
        assert error.field == "guided_regex"
        assert "not closed" in error.message
        assert len(gw.said("b").token_ids) == 20
        assert scheduler.parked == []


async def test_a_grammar_is_refused_by_an_engine_that_takes_none(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    sampling = Sampling(max_tokens=20)
    sampling.grammar.CopyFrom(Grammar(structure=Structure(regex="a"), field="guided_regex"))
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        (refusal,) = await scheduler.dispatch(worker_id, record("a", gw, sampling=sampling))
        assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_INVALID
        assert refusal.message == "this worker's engine takes no grammars"


async def test_masks_that_leave_no_token_end_the_request_by_their_field(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    sampling = Sampling(max_tokens=20, top_p=1, repetition_penalty=1, allowed_token_ids=[5])
    sampling.bad_words.add(token_ids=[5])
    async with worker_here(nats_url, held_engine()):
        worker_id = await scheduler.first_worker()
        bad = record("a", gw, weights_digest="random", sampling=sampling)
        assert await scheduler.dispatch(worker_id, bad) == []
        await eventually(lambda: gw.said("a").has_ended)
        error = from_status(gw.said("a").endings[0].error)
        assert error.field == "allowed_token_ids"
        assert "allows no token" in error.message


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=20, min_tokens=2),
        Sampling(max_tokens=20, bad_words=[TokenRun(token_ids=[1])]),
        Sampling(max_tokens=20, allowed_token_ids=[1]),
    ],
    ids=["min_tokens", "bad_words", "allowed_token_ids"],
)
async def test_masks_are_refused_by_an_engine_that_has_none(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor, sampling: Sampling
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        (refusal,) = await scheduler.dispatch(worker_id, record("a", gw, sampling=sampling))
        assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_INVALID
        assert refusal.message == "this worker's engine masks no tokens"

"""The gateway's mesh side against a real nats-server and real gRPC streams."""

from __future__ import annotations

import dataclasses
from typing import Any

from headrace.bus import Bus
from headrace.errors import (
    DeadlineExceeded,
    RequestCancelled,
)
from headrace.internal.v1.delivery_pb2 import Ending, Opening
from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1 import common_pb2
from headrace_gateway.request.generation import ChoiceEnded, Failed, Tokens
from helpers.eventually import eventually
from helpers.gateway_actors import (
    MODEL,
    leader,
    read,
    read_some,
    running_mesh,
    valid_request,
    worker,
)

LENGTH = common_pb2.FINISH_REASON_LENGTH


async def test_an_admitted_request_is_in_its_lane_with_all_a_worker_needs(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        await gateway.open("r1", n=2)
        lane = await bus.take_over(MODEL, "standard")
        (pulled,) = await lane.pull(max_messages=8, timeout_s=2.0)
        record = RequestRecord.FromString(pulled.payload)
        assert (record.request_id, record.model, record.weights_digest) == ("r1", MODEL, "w1")
        assert (list(record.prompt_ids), record.seed, record.n) == ([1, 2, 3], 11, 2)
        assert (record.gateway_id, record.delivery_address) == ("gw", gateway.address)
        assert record.deadline.ToSeconds() - record.arrival.ToSeconds() == 60
        assert dict(record.trace_context) == {"traceparent": "00-1-2-01"}


async def test_a_record_says_who_pays_for_it_and_for_which_listed_model(bus: Bus) -> None:
    payer: dict[str, Any] = {"key_id": "8dFanMt4iD4", "person": "p1", "adapter": "poet"}
    async with running_mesh(bus) as gateway:
        await gateway.mesh.admission.open(dataclasses.replace(valid_request("r1"), **payer))
        lane = await bus.take_over(MODEL, "standard")
        (pulled,) = await lane.pull(max_messages=8, timeout_s=2.0)
        record = RequestRecord.FromString(pulled.payload)
        assert (record.key_id, record.person) == ("8dFanMt4iD4", "p1")
        assert (record.model, record.listed_model) == (MODEL, f"{MODEL}:poet")


async def test_tokens_come_through_by_index_and_the_end_is_acknowledged(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        generation = await gateway.open("r1")
        await w1.send(
            openings=[Opening(slot=4, request_id="r1", attempt=1)],
            tokens=[(4, 0, 7), (4, 1, 8)],
            endings=[Ending(slot=4, finish_reason=LENGTH, output_tokens=2)],
        )
        assert await read(generation) == [Tokens(0, 0, [7, 8]), ChoiceEnded(0, LENGTH)]
        await eventually(lambda: w1.acknowledged == [4])
        assert w1.cancelled == []


async def test_each_choice_has_its_own_tokens_and_a_request_ends_with_its_last(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        generation = await gateway.open("r1", n=2)
        first = await w1.start("r1", attempt=1, choice=0)
        second = await w1.start("r1", attempt=1, choice=1)
        await w1.send(tokens=[(first, 0, 7), (second, 0, 8)])
        await w1.end(second, output_tokens=1)
        await w1.end(first, output_tokens=1)
        events = await read(generation)
        assert [e for e in events if isinstance(e, Tokens)] == [
            Tokens(0, 0, [7]),
            Tokens(1, 0, [8]),
        ]
        assert sorted(e.choice for e in events if isinstance(e, ChoiceEnded)) == [0, 1]


async def test_a_broken_stream_is_lost_and_another_worker_continues_without_gap_or_repeat(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        generation = await gateway.open("r1")
        async with worker(gateway.address, "w1") as w1:
            slot = await w1.start("r1", attempt=1)
            await w1.run_on(slot, first=0, ids=[7, 8, 9])
            await eventually(lambda: gateway.open_request("r1").output.output_tokens == 3)
        await eventually(lambda: len(boss.lost) == 1)
        (point,) = boss.lost[0].points
        assert (boss.lost[0].worker_id, point.attempt) == ("w1", 1)
        assert point.cause == ParkCause.PARK_CAUSE_LOST
        assert list(point.progress[0].output_ids) == [7, 8, 9]
        async with worker(gateway.address, "w2") as w2:
            slot = await w2.start("r1", attempt=2)
            await w2.run_on(slot, first=3, ids=[10, 11])
            await w2.end(slot, output_tokens=5)
            assert await read(generation) == [
                Tokens(0, 0, [7, 8, 9, 10, 11]),
                ChoiceEnded(0, LENGTH),
            ]


async def test_a_worker_that_reconnects_in_time_continues_where_it_was(bus: Bus) -> None:
    async with running_mesh(bus, worker_reconnect_grace_s=1.0) as gateway, leader(bus) as boss:
        generation = await gateway.open("r1")
        async with worker(gateway.address) as w1:
            slot = await w1.start("r1", attempt=1)
            await w1.run_on(slot, first=0, ids=[7, 8])
            await eventually(lambda: gateway.open_request("r1").output.output_tokens == 2)
        async with worker(gateway.address) as again:
            slot = await again.start("r1", attempt=1)
            await again.run_on(slot, first=0, ids=[7, 8, 9])
            await again.end(slot, output_tokens=3)
            assert await read(generation) == [Tokens(0, 0, [7, 8, 9]), ChoiceEnded(0, LENGTH)]
        assert boss.lost == []


async def test_a_zombies_late_tokens_are_fenced_and_its_slot_is_cancelled(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        generation = await gateway.open("r1")
        async with worker(gateway.address, "zombie") as old, worker(gateway.address, "w2") as new:
            stale = await old.start("r1", attempt=1)
            await old.run_on(stale, first=0, ids=[7])
            await eventually(lambda: gateway.open_request("r1").output.output_tokens == 1)
            slot = await new.start("r1", attempt=2)
            await eventually(lambda: old.cancelled == [stale])
            await old.run_on(stale, first=1, ids=[666, 667])
            await old.end(stale, output_tokens=3)
            late = await old.start("r1", attempt=1)
            await eventually(lambda: old.cancelled == [stale, late])
            await new.run_on(slot, first=1, ids=[8])
            await new.end(slot, output_tokens=2)
            assert await read(generation) == [Tokens(0, 0, [7, 8]), ChoiceEnded(0, LENGTH)]


async def test_a_worker_that_skips_a_token_is_fenced_and_its_request_put_back(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss, worker(gateway.address) as w1:
        await gateway.open("r1")
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=[7])
        await w1.run_on(slot, first=2, ids=[9])
        await eventually(lambda: len(boss.lost) == 1)
        (point,) = boss.lost[0].points
        assert "output index 2 where 1 was next" in point.error.message
        assert list(point.progress[0].output_ids) == [7]
        await eventually(lambda: w1.cancelled == [slot])


async def test_a_client_that_disconnects_stops_its_worker_and_settles_as_cancelled(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss, worker(gateway.address) as w1:
        generation = await gateway.open("r1")
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=[7])
        assert await read_some(generation, tokens=1) == [7]
        await generation.abandon()
        await eventually(lambda: w1.cancelled == [slot])
        await eventually(lambda: [s.request_id for s in boss.settled] == ["r1"])
        assert boss.settled[0].code == RequestCancelled.code.number
        assert (boss.settled[0].prompt_tokens, boss.settled[0].output_tokens) == (3, 1)


async def test_a_sequence_of_an_unknown_request_is_cancelled_at_once(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        slot = await w1.start("nobody", attempt=1)
        await eventually(lambda: w1.cancelled == [slot])


async def test_a_stop_string_frees_its_slot_and_the_other_choice_continues(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        generation = await gateway.open("r1", n=2)
        first = await w1.start("r1", attempt=1, choice=0)
        second = await w1.start("r1", attempt=1, choice=1)
        await w1.run_on(first, first=0, ids=[7])
        assert await read_some(generation, tokens=1) == [7]
        generation.end_choice(0, 1)
        await eventually(lambda: w1.cancelled == [first])
        await w1.run_on(second, first=0, ids=[8])
        await w1.end(second, output_tokens=1)
        assert await read(generation) == [Tokens(1, 0, [8]), ChoiceEnded(1, LENGTH)]


async def test_an_ending_with_an_error_fails_the_request_and_stops_its_other_choices(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        generation = await gateway.open("r1", n=2)
        first = await w1.start("r1", attempt=1, choice=0)
        second = await w1.start("r1", attempt=1, choice=1)
        await w1.end(
            first,
            output_tokens=0,
            reason=common_pb2.FINISH_REASON_ERROR,
            error=DeadlineExceeded("too late"),
        )
        (failed,) = await read(generation)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, DeadlineExceeded)
        await eventually(lambda: w1.acknowledged == [first] and w1.cancelled == [second])


async def test_a_worker_that_half_closes_gets_its_last_acknowledgement(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        await gateway.open("r1")
        slot = await w1.start("r1", attempt=1)
        await w1.end(slot, output_tokens=0)
        await w1.finish()
        assert w1.acknowledged == [slot]

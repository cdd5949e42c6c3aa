"""The responses to a worker: exactly one for every slot that it has opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import REGISTRY

from headrace.clock import SystemClock
from headrace.errors import EngineFailed, RequestCancelled
from headrace.internal.v1.delivery_pb2 import (
    DeliverRequest,
    DeliverResponse,
    Ending,
    Opening,
    RowLogprobs,
)
from headrace.internal.v1.request_pb2 import RequestRecord, Sampling
from headrace.logprobs import Logprobs
from headrace.v1 import common_pb2
from headrace_gateway.request.generation import ChoiceEnded, Tokens
from headrace_gateway.request.logprob_columns import UnequalColumns
from headrace_gateway.stream.open_request import OpenRequest, SlotBinding
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.output_log import OutputCursor
from headrace_gateway.stream.worker_stream import WorkerStream
from headrace_worker.runtime.logprob_columns import add_prompt, add_rows

LENGTH = common_pb2.FINISH_REASON_LENGTH


@dataclass
class Room:
    """A table of open requests, and what was reported as faulty."""

    requests: OpenRequests = field(default_factory=OpenRequests)
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Requests for which more budget was asked for."""

    def open(
        self,
        request_id: str,
        *,
        choices: int = 1,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
    ) -> OpenRequest:
        record = RequestRecord(
            request_id=request_id,
            model="toy",
            priority=common_pb2.PRIORITY_STANDARD,
            prompt_tokens=3,
            n=choices,
            sampling=Sampling(max_tokens=100, logprobs=logprobs, prompt_logprobs=prompt_logprobs),
        )
        open_request = OpenRequest(
            record, 60.0, SystemClock(), lambda closed, _: self.requests.remove(closed)
        )
        self.requests.add(open_request)
        return open_request

    def line(self) -> WorkerStream:
        return WorkerStream("w1", self.requests, self.on_fault, self)

    def ask(self, open_request: OpenRequest) -> None:
        self.asked.append(open_request.request_id)

    def stop(self, binding: SlotBinding, worker_id: str) -> None:
        binding.open_request.fence(binding.attempt)

    def on_fault(self, binding: SlotBinding, worker_id: str, error: EngineFailed) -> None:
        self.faults.append(f"{worker_id}: {error.message}")
        binding.open_request.fence(binding.attempt)


def opening(slot: int, request_id: str = "r1", *, attempt: int = 1, choice: int = 0) -> Opening:
    return Opening(slot=slot, request_id=request_id, attempt=attempt, choice=choice)


def tokens(*rows: tuple[int, int, int]) -> DeliverRequest:
    slots, indices, ids = zip(*rows, strict=True)
    return DeliverRequest(slots=slots, indices=indices, token_ids=ids)


def ending(slot: int, output_tokens: int) -> DeliverRequest:
    last = Ending(slot=slot, finish_reason=LENGTH, output_tokens=output_tokens)
    return DeliverRequest(endings=[last])


async def said(line: WorkerStream) -> DeliverResponse:
    response = await line.response()
    assert response is not None
    return response


def test_a_vector_counts_as_new_output() -> None:
    room = Room()
    open_request = room.open("r1")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(3)]))
    last = Ending(slot=3, finish_reason=LENGTH, vector=b"1234")
    assert line.take(DeliverRequest(endings=[last]))
    (ended,) = OutputCursor(open_request.output).drain()
    assert isinstance(ended, ChoiceEnded)
    assert ended.vector == b"1234"
    assert not line.take(DeliverRequest(endings=[last]))


async def test_a_taken_ending_is_acknowledged_and_its_slot_is_free() -> None:
    room = Room()
    room.open("r1")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(3)]))
    assert line.take(tokens((3, 0, 7)))
    line.take(ending(3, 1))
    assert (await said(line)).acknowledged_slots == [3]
    assert line.bound_slots == 0


async def test_acknowledgements_and_cancellations_of_a_moment_go_in_one_response() -> None:
    room = Room()
    room.open("r1")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1), opening(2, "unknown")]))
    line.take(ending(1, 0))
    response = await said(line)
    assert list(response.acknowledged_slots) == [1]
    assert list(response.cancelled_slots) == [2]


async def test_a_cancelled_slot_is_ignored_until_it_is_opened_again() -> None:
    room = Room()
    first, second = room.open("r1"), room.open("r2")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1)]))
    first.fail(RequestCancelled("gone"))
    assert not line.take(tokens((1, 0, 7)))
    line.take(ending(1, 1))
    assert (await said(line)).cancelled_slots == [1]
    line.take(DeliverRequest(openings=[opening(1, "r2")]))
    assert line.take(tokens((1, 0, 8)))
    assert second.output.output_tokens == 1


async def test_a_second_stream_of_the_same_attempt_is_accepted_beside_the_first() -> None:
    room = Room()
    open_request = room.open("r1")
    old, new = room.line(), room.line()
    old.take(DeliverRequest(openings=[opening(1)]))
    old.take(tokens((1, 0, 7)))
    new.take(DeliverRequest(openings=[opening(9)]))
    assert new.take(tokens((9, 0, 7), (9, 1, 8)))
    assert open_request.output.output_tokens == 2
    assert [binding.slot for binding in old.unbind_all()] == [1]
    assert open_request.has_binding(0, 1)


async def test_an_end_through_one_stream_cancels_the_slot_of_the_other_at_its_next_token() -> None:
    room = Room()
    room.open("r1")
    old, new = room.line(), room.line()
    old.take(DeliverRequest(openings=[opening(1)]))
    new.take(DeliverRequest(openings=[opening(2)]))
    new.take(ending(2, 0))
    old.take(ending(1, 0))
    assert (await said(old)).cancelled_slots == [1]
    assert (await said(new)).acknowledged_slots == [2]


async def test_late_tokens_are_counted() -> None:
    room = Room()
    room.open("r1")
    old, new = room.line(), room.line()
    old.take(DeliverRequest(openings=[opening(1)]))
    new.take(DeliverRequest(openings=[opening(1, attempt=2)]))
    before = counted("stale_tokens")
    old.take(tokens((1, 0, 7), (1, 1, 8)))
    assert counted("stale_tokens") == before + 2


async def test_repeated_tokens_that_differ_are_counted_as_mismatches() -> None:
    room = Room()
    room.open("r1")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1)]))
    line.take(tokens((1, 0, 7)))
    before = counted("replay_mismatch")
    assert not line.take(tokens((1, 0, 8)))
    assert counted("replay_mismatch") == before + 1


async def test_a_gap_costs_its_own_request_and_no_other() -> None:
    room = Room()
    room.open("r1")
    good = room.open("r2")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1), opening(2, "r2")]))
    line.take(tokens((1, 1, 7), (2, 0, 8)))
    assert room.faults == ["w1: worker w1: output index 1 where 0 was next"]
    assert good.output.output_tokens == 1
    assert (await said(line)).cancelled_slots == [1]


async def test_an_opening_of_a_choice_that_does_not_exist_is_a_fault_and_cancelled() -> None:
    room = Room()
    room.open("r1")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1, choice=4)]))
    assert len(room.faults) == 1
    assert (await said(line)).cancelled_slots == [1]
    assert line.bound_slots == 0


async def test_columns_of_unequal_length_are_malformed() -> None:
    room = Room()
    with pytest.raises(UnequalColumns, match="1 slots, 0 indices, 1 tokens"):
        room.line().take(DeliverRequest(slots=[1], token_ids=[7]))


def telling(**columns: list[Any]) -> DeliverRequest:
    """A token of slot 1, and these columns of logprobs."""
    message = tokens((1, 0, 7))
    message.logprobs.CopyFrom(RowLogprobs(**columns))
    return message


async def test_logprobs_are_assigned_by_their_rows() -> None:
    room = Room()
    silent = room.open("r1")
    wide, narrow = (room.open(name, logprobs=1) for name in ("r2", "r3"))
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1), opening(2, "r2"), opening(3, "r3")]))
    message = tokens((3, 0, 6), (1, 0, 7), (2, 0, 8), (2, 1, 9))
    for row, run in ((0, Logprobs.of([-1])), (2, two := Logprobs.of([-2, -3], [4, 5], [-2, -4]))):
        add_rows(message, row, run)
    assert line.take(message)
    assert room.faults == []
    assert OutputCursor(silent.output).drain() == [Tokens(0, 0, [7])]
    assert OutputCursor(wide.output).drain() == [Tokens(0, 0, [8, 9], two)]
    assert OutputCursor(narrow.output).drain() == [Tokens(0, 0, [6], Logprobs.of([-1]))]


async def test_logprobs_of_a_prompt_come_with_the_first_output() -> None:
    room = Room()
    open_request = room.open("r1", prompt_logprobs=1)
    line = room.line()
    message = DeliverRequest(openings=[opening(1)])
    add_prompt(message, 1, 0, run := Logprobs.of([-1, -2]))
    line.take(message)
    line.take(tokens((1, 0, 7)))
    assert OutputCursor(open_request.output).drain() == [Tokens(0, 0, [7], None, run)]


async def test_missing_logprobs_cost_their_own_request_and_no_other() -> None:
    room = Room()
    room.open("r1", logprobs=1)
    good = room.open("r2")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1), opening(2, "r2")]))
    line.take(tokens((1, 0, 7), (2, 0, 8)))
    assert room.faults == ["w1: worker w1: output index 0 without logprobs"]
    assert good.output.output_tokens == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"rows": [0]},
        {"rows": [1], "logprobs": [-1.0], "top_counts": [0]},
        {"rows": [0], "logprobs": [-1.0], "top_counts": [2], "top_token_ids": [5]},
        {
            "rows": [0],
            "logprobs": [-1.0],
            "top_counts": [1],
            "top_token_ids": [5],
            "top_logprobs": [-1.0, -2.0],
        },
    ],
)
async def test_columns_of_logprobs_that_do_not_fit_together_are_malformed(
    columns: dict[str, list[Any]],
) -> None:
    room = Room()
    room.open("r1")
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1)]))
    with pytest.raises(UnequalColumns, match="logprobs in columns"):
        line.take(telling(**columns))


async def test_a_broken_stream_leaves_nothing_bound() -> None:
    room = Room()
    open_request = room.open("r1", choices=2)
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1), opening(2, choice=1)]))
    assert len(line.unbind_all()) == 2
    assert (open_request.bindings, line.bound_slots) == (0, 0)


async def test_a_finished_stream_sends_the_last_response_and_then_nothing() -> None:
    room = Room()
    line = room.line()
    line.take(DeliverRequest(openings=[opening(1, "unknown")]))
    line.finish()
    assert (await said(line)).cancelled_slots == [1]
    assert await line.response() is None


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"headrace_gateway_{name}_total") or 0.0


def test_what_is_beyond_the_budget_is_not_taken_and_stops_every_choice() -> None:
    room = Room()
    open_request, line = room.open("r1", choices=2), room.line()
    open_request.output.allow(4, ask_at=3)
    line.take(DeliverRequest(openings=[opening(1), opening(2, choice=1)]))
    line.take(tokens((1, 0, 70), (2, 0, 80)))
    assert room.asked == []
    line.take(tokens((1, 1, 71)))
    assert room.asked == ["r1"]
    line.take(tokens((2, 1, 81), (1, 2, 72), (2, 2, 82)))
    assert open_request.output.output_tokens == 4
    assert open_request.output.is_used_up
    assert open_request.bindings == 0
    assert room.faults == []
    open_request.output.allow(8, ask_at=7)
    line.take(DeliverRequest(openings=[opening(3, attempt=2)]))
    line.take(tokens((3, 2, 72)))
    assert open_request.output.output_tokens == 5


def test_an_end_at_the_budget_needs_no_more_of_it() -> None:
    room = Room()
    open_request, line = room.open("r1"), room.line()
    open_request.output.allow(2, ask_at=2)
    line.take(DeliverRequest(openings=[opening(1)]))
    line.take(tokens((1, 0, 70), (1, 1, 71)))
    line.take(ending(1, 2))
    assert open_request.output.ended
    assert not open_request.output.is_used_up

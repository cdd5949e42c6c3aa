"""The events of a response's stream, each held against OpenAI's models, and its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_reasoning_item import (
    Content,
    ResponseReasoningItem,
    Summary,
)

from headrace.errors import (
    DeadlineExceeded,
    HeadraceError,
    InvalidRequest,
    LaneFull,
    RequestCancelled,
)
from headrace.v1.common_pb2 import FinishReason, Usage
from headrace_gateway.api.bodies.unknown_fields import UnknownFields
from headrace_gateway.api.responses.wire.events import ResponseEvents, written
from headrace_gateway.api.responses.wire.items import as_messages, read_items
from headrace_gateway.api.responses.wire.resource import Description, Ending, response_json
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.parsers.pieces import CallPiece
from helpers.strict_openai import strict_event, strict_response

STOP, LENGTH = FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_LENGTH
USAGE = Usage(prompt_tokens=3, output_tokens=4, cached_prompt_tokens=2)
FIELDS: dict[str, Any] = {
    "model": "valley",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def description(**more: Any) -> Description:
    return Description("resp_r1", 1_700_000_000, FIELDS, [], 0, **more)


def text(value: str) -> ChoiceDelta:
    return ChoiceDelta(0, 0, text=value)


def call(index: int, *arguments: str) -> list[ChoiceDelta]:
    pieces = [CallPiece(index, "f", "", f"call_{index}")]
    pieces += [CallPiece(index, None, part) for part in arguments]
    return [ChoiceDelta(0, 0, calls=[piece]) for piece in pieces]


def end(reason: FinishReason.ValueType = STOP) -> ChoiceDelta:
    return ChoiceDelta(0, 0, finish_reason=reason)


def stream(
    deltas: Iterable[ChoiceDelta],
    of: Description | None = None,
    error: HeadraceError | None = None,
) -> list[dict[str, Any]]:
    """Return the events, each of which is valid."""
    events = ResponseEvents(of or description())
    made = list(events.opening())
    for delta in deltas:
        made += events.take(delta)
    made += events.ending(Ending(USAGE, events.finish_reason, error, 1_700_000_009.5))
    for event in made:
        strict_event(event)
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
    return made


def short(events: Iterable[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_comes_in_openais_order() -> None:
    made = stream([text("the "), text("mill"), end()])
    assert short(made) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    last = strict_response(made[-1]["response"])
    assert (last.status, last.output_text, last.completed_at) == (
        "completed",
        "the mill",
        1_700_000_009,
    )
    assert last.usage is not None
    assert (last.usage.total_tokens, last.usage.input_tokens_details.cached_tokens) == (7, 2)
    assert made[6]["text"] == "the mill"


def test_a_background_response_is_queued_first() -> None:
    made = stream([text("a"), end()], description(background=True))
    assert short(made)[:3] == ["created", "queued", "in_progress"]
    assert [event["response"]["status"] for event in made[:3]] == [
        "queued",
        "queued",
        "in_progress",
    ]


def test_calls_are_items_of_their_own_behind_the_text() -> None:
    made = stream([text("Let me see."), *call(0, '{"a"', ":1}"), *call(1, "{}"), end()])
    assert short(made)[5:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        *("output_item.added", *["function_call_arguments.delta"] * 2),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    output = strict_response(made[-1]["response"]).output
    assert [item.type for item in output] == ["message", "function_call", "function_call"]
    assert [event["output_index"] for event in made if "output_index" in event] == sorted(
        event["output_index"] for event in made if "output_index" in event
    )
    assert made[-1]["response"]["output"][1] == {
        "id": "fc_r1_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_0",
        "name": "f",
        "arguments": '{"a":1}',
    }


@pytest.mark.parametrize(
    ("summarized", "expected"),
    [
        (False, ["content_part.added", *["reasoning_text.delta"] * 2, "reasoning_text.done"]),
        (
            True,
            [
                "reasoning_summary_part.added",
                *["reasoning_summary_text.delta"] * 2,
                "reasoning_summary_text.done",
            ],
        ),
    ],
)
def test_reasoning_is_an_item_before_the_text(summarized: bool, expected: list[str]) -> None:
    thoughts = [ChoiceDelta(0, 0, reasoning=part) for part in ("It is", " 9.")]
    of = description(summarized=summarized, encrypted=True)
    made = stream([*thoughts, text("9"), end()], of)
    assert short(made)[3:7] == expected
    reasoning, message = strict_response(made[-1]["response"]).output
    assert isinstance(reasoning, ResponseReasoningItem)
    assert message.type == "message"
    shown: Sequence[Summary | Content] | None = (
        reasoning.summary if summarized else reasoning.content
    )
    assert shown is not None
    assert [part.text for part in shown] == ["It is 9."]
    (again,) = read_items([reasoning.model_dump(exclude_none=True)], "input", UnknownFields())
    without_text = again | {"summary": [], "content": []}
    assert as_messages([without_text])[0]["reasoning_content"] == "It is 9."


def test_what_a_limit_cuts_is_incomplete() -> None:
    made = stream([text("the"), end(LENGTH)])
    last = strict_response(made[-1]["response"])
    assert (made[-1]["type"], last.status) == ("response.incomplete", "incomplete")
    assert last.incomplete_details is not None
    assert last.incomplete_details.reason == "max_output_tokens"
    assert made[-1]["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DeadlineExceeded("late"), "failed", "server_error"),
        (LaneFull("toy", retry_after_s=1.0), "failed", "rate_limit_exceeded"),
        (InvalidRequest("odd"), "failed", "invalid_prompt"),
        (RequestCancelled("gone"), "cancelled", None),
    ],
)
def test_what_fails_ends_with_what_there_is(
    error: HeadraceError, status: str, code: str | None
) -> None:
    made = stream([text("the")], error=error)
    last = strict_response(made[-1]["response"])
    assert (made[-1]["type"], last.status, last.output_text) == (
        "response.failed",
        status,
        "the",
    )
    assert (last.error.code if last.error is not None else None) == code


def test_an_answer_without_any_output_is_an_empty_message() -> None:
    last = strict_response(stream([end()])[-1]["response"])
    assert [item.type for item in last.output] == ["message"]
    assert last.output_text == ""


def test_a_response_that_runs_is_valid_too() -> None:
    strict_response(response_json(description(background=True), "queued", []))


def test_an_event_is_written_as_one_of_its_name() -> None:
    event = {"type": "response.queued", "sequence_number": 1}
    data = 'data: {"type":"response.queued","sequence_number":1}'
    assert written(event) == f"event: response.queued\n{data}\n\n"


@given(st.lists(st.sampled_from(["a", "", "call"])), st.data())
def test_whoever_has_some_events_gets_the_rest_by_reading_again(
    kinds: list[str], data: st.DataObject
) -> None:
    deltas: list[ChoiceDelta] = []
    for index, kind in enumerate(kinds):
        deltas += call(index, "{}") if kind == "call" else [text(kind)]
    made = stream([*deltas, end()])
    seen = data.draw(st.integers(-1, len(made)))
    again = [e for e in stream([*deltas, end()]) if e["sequence_number"] > seen]
    assert made[: seen + 1] + again == made

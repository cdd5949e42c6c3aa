"""Events of a response are read once each over losses; rows of batches; lines cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client.calls.endpoint import EventParser
from headrace.client.calls.retries import Retries
from headrace.client.calls.scripts import (
    END,
    SILENCE_S,
    Close,
    Emit,
    Next,
    Open,
    RestCall,
    Run,
    Send,
    Sleep,
)
from headrace.client.rest.batches import BatchResult, batch_lines
from headrace.client.rest.responses import EventReader, Response, ResponseEvent, ResponseScripts
from headrace.client.unreachable import ConnectionLost
from headrace.errors import HeadraceError, InternalError, InvalidRequest, LaneFull

WORDS = ("It", " is", " a", " mill")
TEXT = "response.output_text.delta"
RESPONSE = {"id": "resp_1", "status": "completed", "model": "m", "output": []}


def events(words: tuple[str, ...] = WORDS) -> list[dict[str, Any]]:
    deltas = [{"type": TEXT, "delta": word} for word in words]
    first, last = (
        {"type": f"response.{kind}", "response": RESPONSE} for kind in ("created", "completed")
    )
    found: list[dict[str, Any]] = [first, *deltas, last]
    return [{**each, "sequence_number": number} for number, each in enumerate(found)]


def read(
    connections: Iterator[Iterator[dict[str, Any]]], method: str = "POST", after: int = -1
) -> list[ResponseEvent]:
    reader = EventReader(RestCall(method, "/"), Retries(attempts=9), after)
    run, emitted = Run(reader.read()), []
    while (effect := run.next_effect()) is not None:
        match effect:
            case Emit(item):
                emitted.append(item)
            case Open():
                run.reply = next(connections)
            case Next(stream):
                with run.performing(effect):
                    run.reply = next(stream, END)
            case Sleep() | Close():
                pass
    return emitted


def broken(at: int, how: str) -> Iterator[dict[str, Any]]:
    """A connection that ends after so many events: by EOF, by a loss, or with an event of it."""
    yield from events()[:at]
    if how == "lost":
        raise ConnectionLost("lost")
    if how == "error":
        about = {"code": "gateway_draining", "message": "stops", "param": None}
        yield {"type": "error", "sequence_number": at - 1, **about}


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["end", "lost", "error"])), max_size=6)
)
def test_each_event_comes_once_over_any_losses(breaks: list[tuple[int, str]]) -> None:
    connections = iter([*(broken(at, how) for at, how in breaks), iter(events())])
    found = read(connections)
    assert [each.raw for each in found] == events()
    assert "".join(each.text for each in found) == "It is a mill"
    assert found[-1].response is not None


def test_a_stream_that_says_something_else_the_second_time_is_an_error() -> None:
    other = ("It", " was", " a", " mill")
    with pytest.raises(InternalError, match="differs from event 2 on"):
        read(iter([broken(3, "lost"), iter(events(other))]))


def test_behind_the_last_event_there_is_nothing() -> None:
    assert read(iter([iter([])]), "GET", after=5) == []


def test_a_stored_stream_that_breaks_off_and_is_empty_then_is_not_at_its_end() -> None:
    found = read(iter([broken(3, "lost"), iter([]), iter(events())]), "GET")
    assert [each.raw for each in found] == events()


def test_a_response_is_not_created_as_a_stream() -> None:
    with pytest.raises(InvalidRequest) as refused:
        ResponseScripts(Retries()).create("m", "x", {"stream": True})
    assert refused.value.field == "stream"


def test_streams_have_a_deadline_for_silence_and_answers_have_none() -> None:
    scripts = ResponseScripts(Retries())
    for script in (scripts.stream("m", "x", {}), scripts.events("r", 1)):
        assert isinstance(opened := next(script), Open)
        assert isinstance(opened.call, RestCall)
        assert opened.call.silence_s == SILENCE_S
    assert isinstance(created := next(scripts.create("m", "x", {})), Send)
    assert isinstance(created.call, RestCall)
    assert created.call.silence_s is None


def test_a_refusal_is_raised_as_it_is() -> None:
    def refused() -> Iterator[dict[str, Any]]:
        yield {"type": "error", "sequence_number": -1, "code": "lane_full", "message": "full"}

    with pytest.raises(LaneFull, match="full"):
        read(iter([refused() for _ in range(9)]))


def test_a_response_has_its_text_reasoning_calls_and_usage() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = [
        {"type": "reasoning", "summary": [], "content": [{"text": "why"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "so"}]},
        call,
    ]
    usage = {"input_tokens": 3, "output_tokens": 4}
    response = Response.of({**RESPONSE, "output": output, "usage": usage})
    assert (response.text, response.reasoning, response.has_ended) == ("so", "why", True)
    assert [each.name for each in response.tool_calls] == ["f"]
    assert response.usage is not None
    assert response.usage.total_tokens == 7


def test_rows_are_bodies_or_whole_rows() -> None:
    body = {"model": "m", "prompt": "x"}
    lines = batch_lines([body, {"custom_id": "mine", "body": body}], "/v1/completions")
    common = {"method": "POST", "url": "/v1/completions", "body": body}
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"custom_id": "row-0", **common},
        {"custom_id": "mine", **common},
    ]


def test_a_row_has_its_text_or_why_it_has_none() -> None:
    chat = {"choices": [{"message": {"content": "hi"}}]}
    row: dict[str, Any] = {"custom_id": "a", "response": {"status_code": 200, "body": chat}}
    result = BatchResult.of(json.dumps(row).encode())
    assert (result.custom_id, result.status, result.text, result.error) == ("a", 200, "hi", None)
    row["response"] = {"status_code": 400, "body": {"error": {"code": "invalid_request"}}}
    failed = BatchResult.of(json.dumps(row).encode())
    assert (failed.text, (failed.error or {})["code"]) == ("", "invalid_request")
    row = {"custom_id": "b", "response": None, "error": {"code": "batch_expired"}}
    assert BatchResult.of(json.dumps(row).encode()).status is None


@given(st.integers(1, 9))
def test_lines_end_at_line_feeds_alone_wherever_they_are_cut(size: int) -> None:
    data = 'data: {"a": "\u2028\x85"}\r\n\ndata: [DONE]'.encode()
    parser = EventParser()
    lines = [
        line for at in range(0, len(data), size) for line in parser.lines(data[at : at + size])
    ]
    expected = ['data: {"a": "\u2028\x85"}', "", "data: [DONE]"]
    assert [line.decode() for line in (*lines, *parser.end())] == expected


def test_an_error_names_the_request_that_it_is_of() -> None:
    def script() -> Any:
        yield Open(RestCall("GET", "/"))

    run = Run(script())
    effect = run.next_effect()
    assert isinstance(effect, Open)
    error = HeadraceError("no")
    error.request_id = "r1"
    with run.performing(effect):
        raise error
    with pytest.raises(HeadraceError) as raised:
        run.next_effect()
    assert raised.value.request_id == "r1"

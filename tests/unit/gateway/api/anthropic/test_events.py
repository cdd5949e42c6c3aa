"""Anthropic's events and messages, read by the models of its own package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, ToolCall, Usage
from headrace_gateway.api.anthropic.events import MessageFields, MessageFormatter
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.parsers.pieces import CallPiece
from helpers.anthropic_models import events, message

STOP, LENGTH = FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_LENGTH
FIELDS = MessageFields("abc", "valley", prompt_tokens=30)
USAGE = Usage(prompt_tokens=30, cached_prompt_tokens=20, output_tokens=4)
AWKWARD = 'a"b\\c\n\r\t\x00\x1f\u2028\u2029\x85</script>🌊 é'


def delta(text: str = "", *calls: CallPiece, **more: Any) -> ChoiceDelta:
    return ChoiceDelta(0, 0, text, calls=list(calls), **more)


def head(index: int, name: str = "look") -> CallPiece:
    return CallPiece(index, name, "", call_id=f"call_abc_0_{index}")


def body(index: int, arguments: str) -> CallPiece:
    return CallPiece(index, None, arguments)


def streamed(*deltas: ChoiceDelta, fields: MessageFields = FIELDS) -> list[Any]:
    """Events of a stream whose deltas come one by one."""
    formatter = MessageFormatter(fields)
    text = formatter.opening() + "".join(formatter.events([each]) for each in deltas)
    return events(text + formatter.ending(USAGE))


def blocks(seen: Sequence[Any]) -> list[tuple[str, str]]:
    """Every block's type and what its deltas add up to; each is closed before the next opens."""
    found: list[tuple[str, str]] = []
    is_open = False
    for event in seen:
        if event.type == "content_block_start":
            assert not is_open
            assert event.index == len(found)
            found.append((event.content_block.type, ""))
            is_open = True
        elif event.type == "content_block_delta":
            assert is_open
            assert event.index == len(found) - 1
            kind, content = found[-1]
            if event.delta.type != "signature_delta":
                member = {"text": "text", "thinking": "thinking"}.get(kind, "partial_json")
                found[-1] = kind, content + getattr(event.delta, member)
        elif event.type == "content_block_stop":
            assert is_open
            is_open = False
    assert not is_open
    return found


def test_a_stream_opens_with_the_prompts_usage_and_ends_with_that_of_all() -> None:
    seen = streamed(delta("Hi", cached_prompt=20), delta(finish_reason=STOP))
    start, end = seen[0].message, seen[-2]
    assert (start.id, start.model, start.content, start.stop_reason) == (
        "msg_abc",
        "valley",
        [],
        None,
    )
    assert (start.usage.input_tokens, start.usage.cache_read_input_tokens) == (10, 20)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (10, 4)
    assert (end.delta.stop_reason, seen[-1].type) == ("end_turn", "message_stop")


def test_text_survives_whatever_is_in_it() -> None:
    assert blocks(streamed(delta(AWKWARD, finish_reason=STOP))) == [("text", AWKWARD)]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([delta("a"), delta(" b")], [("text", "a b")]),
        ([delta("\n"), delta(" b")], [("text", "\n b")]),
        ([delta("\n"), delta("", head(0)), delta("", body(0, "{}"))], [("tool_use", "{}")]),
        (
            [delta("a", head(0), body(0, "{")), delta("b", body(0, "}"), head(1), body(1, "{}"))],
            [("text", "a"), ("tool_use", "{}"), ("text", "b"), ("tool_use", "{}")],
        ),
        (
            [delta("", head(0), body(0, "{}"), head(1), body(1, "[]"))],
            [("tool_use", "{}"), ("tool_use", "[]")],
        ),
        (
            [delta(reasoning="\nIt"), delta(reasoning=" may."), delta("\n"), delta("Rain.")],
            [("thinking", "\nIt may."), ("text", "\nRain.")],
        ),
        ([delta("Rain.", reasoning="It may.")], [("thinking", "It may."), ("text", "Rain.")]),
        ([delta(reasoning="\n\n"), delta("Rain.")], [("text", "Rain.")]),
        ([delta(reasoning="It"), delta("\n", head(0))], [("thinking", "It"), ("tool_use", "")]),
        ([delta(reasoning="It may")], [("thinking", "It may")]),
        ([delta()], [("text", "")]),
        ([delta("\n")], [("text", "\n")]),
    ],
)
def test_each_text_and_each_call_is_a_block(
    deltas: list[ChoiceDelta], expected: list[tuple[str, str]]
) -> None:
    assert blocks(streamed(*deltas, delta(finish_reason=STOP))) == expected


@given(st.lists(st.sampled_from(["", "a", " ", "\n\n"]), min_size=1), st.data())
def test_a_text_is_the_same_however_it_is_cut(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts)
    seen = blocks(streamed(*map(delta, texts), delta(finish_reason=STOP)))
    assert seen == [("text", whole)]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (delta(finish_reason=STOP), ("end_turn", None)),
        (delta(finish_reason=LENGTH), ("max_tokens", None)),
        (delta(finish_reason=STOP, stop_string="END"), ("stop_sequence", "END")),
        (delta("", head(0), body(0, "{}"), finish_reason=STOP), ("tool_use", None)),
        (delta("", head(0), body(0, "{"), finish_reason=LENGTH), ("max_tokens", None)),
    ],
)
def test_why_it_stopped_is_the_same_in_a_stream_and_whole(
    last: ChoiceDelta, expected: tuple[str, str | None]
) -> None:
    end = streamed(last)[-2].delta
    assert (end.stop_reason, end.stop_sequence) == expected
    choice = Choice(
        finish_reason=last.finish_reason,
        stop_string=last.stop_string or None,
        tool_calls=[ToolCall(call_id="call_abc_0_0", name="look")] if last.calls else (),
    )
    outcome = RequestOutcome(choices=[choice], usage=USAGE)
    whole = message(MessageFormatter(FIELDS).response_body(outcome))
    assert (whole.stop_reason, whole.stop_sequence) == expected


def test_an_answer_that_filled_the_context_says_so() -> None:
    full = MessageFields("abc", "valley", 30, fills_context=True)
    end = streamed(delta("a", finish_reason=LENGTH), fields=full)[-2].delta
    assert end.stop_reason == "model_context_window_exceeded"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [('{"at": "Ulm"}', {"at": "Ulm"}), ('{"at": "U', {"at": "U"}), ("", {}), ("[1]", {})],
)
def test_a_whole_message_has_what_there_is_of_a_call(arguments: str, expected: Any) -> None:
    call = ToolCall(call_id="call_abc_0_0", name="look", arguments=arguments)
    choice = Choice(text="\n", tool_calls=[call], finish_reason=STOP)
    outcome = RequestOutcome(choices=[choice], usage=USAGE)
    (block,) = message(MessageFormatter(FIELDS).response_body(outcome)).content
    assert block.to_dict() == {
        "type": "tool_use",
        "id": "toolu_abc_0_0",
        "name": "look",
        "input": expected,
    }


def test_thinking_is_signed_alike_in_a_stream_and_whole() -> None:
    seen = streamed(
        delta(reasoning="It "), delta("Rain.", reasoning="may."), delta(finish_reason=STOP)
    )
    (signed,) = [
        event.delta
        for event in seen
        if event.type == "content_block_delta" and event.delta.type == "signature_delta"
    ]
    choice = Choice(text="Rain.", reasoning="It may.", finish_reason=STOP)
    usage = Usage(prompt_tokens=3, output_tokens=4, reasoning_tokens=2)
    outcome = RequestOutcome(choices=[choice], usage=usage)
    whole = message(MessageFormatter(FIELDS).response_body(outcome))
    thinking, text = (block.to_dict() for block in whole.content)
    assert (thinking["thinking"], thinking["signature"]) == ("It may.", signed.signature)
    assert text["text"] == "Rain."
    assert whole.usage.output_tokens_details is not None
    assert whole.usage.output_tokens_details.thinking_tokens == 2


def test_thinking_that_is_omitted_leaves_its_signature() -> None:
    fields = MessageFields("abc", "valley", 30, hides_thinking=True)
    seen = streamed(delta("Rain.", reasoning="It may."), delta(finish_reason=STOP), fields=fields)
    assert blocks(seen) == [("thinking", ""), ("text", "Rain.")]
    choice = Choice(text="Rain.", reasoning="It may.", finish_reason=STOP)
    outcome = RequestOutcome(choices=[choice], usage=USAGE)
    thinking, _ = message(MessageFormatter(fields).response_body(outcome)).content
    assert thinking.to_dict()["thinking"] == ""
    assert thinking.to_dict()["signature"]

"""OpenAI's events and bodies, read by OpenAI's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from headrace.errors import (
    AttemptsExhausted,
    ContextLengthExceeded,
    EngineFailed,
    HeadraceError,
    InvalidRequest,
    LaneFull,
    ModelNotFound,
    NoWorker,
    RequestExists,
    Unsupported,
)
from headrace.rpc.http_errors import error_headers, http_status, openai_error
from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, Usage
from headrace_gateway.api.bodies.generation import StreamOptions
from headrace_gateway.api.openai.chunks import (
    CHAT,
    COMPLETION,
    ChunkFormatter,
    ResponseFields,
    ResponseShape,
    response_body,
)
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.output.position import BEGINNING

STOP, LENGTH = FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_LENGTH
USAGE = Usage(prompt_tokens=3, output_tokens=4)
USAGE_AT_END = StreamOptions(include_usage=True)
USAGE_IN_ALL = StreamOptions(include_usage=True, continuous_usage_stats=True)
AWKWARD = 'a"b\\c\n\r\t\x00\x1f\u2028\u2029\x85</script>🌊 é'


def head(shape: ResponseShape) -> ResponseFields:
    return ResponseFields(shape, "abc", "valley", created=1_700_000_000, fingerprint="fp_1")


def events(text: str) -> list[Any]:
    """The events, as a client that splits lines at every kind of line break reads them."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    data = [block.splitlines() for block in blocks]
    assert all(len(block) == 1 and block[0].startswith("data: ") for block in data)
    return [json.loads(block[0].removeprefix("data: ")) for block in data]


def chunks(text: str) -> list[ChatCompletionChunk]:
    return [ChatCompletionChunk.model_validate(event, strict=True) for event in events(text)]


def test_a_chat_stream_opens_with_the_role_of_every_choice() -> None:
    opening = chunks(ChunkFormatter(head(CHAT), places=[BEGINNING] * 2).opening())
    assert [chunk.choices[0].index for chunk in opening] == [0, 1]
    assert {chunk.choices[0].delta.role for chunk in opening} == {"assistant"}
    assert {(c.id, c.model, c.created, c.system_fingerprint) for c in opening} == {
        ("chatcmpl-abc", "valley", 1_700_000_000, "fp_1")
    }


def test_text_survives_whatever_is_in_it() -> None:
    (chunk,) = chunks(
        ChunkFormatter(head(CHAT), places=[BEGINNING] * 1).events([ChoiceDelta(0, 0, AWKWARD)])
    )
    assert chunk.choices[0].delta.content == AWKWARD
    assert chunk.choices[0].finish_reason is None


def test_the_end_of_a_choice_is_an_event_of_its_own() -> None:
    said = [
        ChoiceDelta(1, 0, "x", [5], finish_reason=LENGTH),
        ChoiceDelta(0, 0, finish_reason=STOP),
    ]
    text, length, stop = chunks(ChunkFormatter(head(CHAT), places=[BEGINNING] * 2).events(said))
    assert (text.choices[0].delta.content, text.choices[0].finish_reason) == ("x", None)
    assert (length.choices[0].index, length.choices[0].finish_reason) == (1, "length")
    assert (stop.choices[0].index, stop.choices[0].finish_reason) == (0, "stop")
    assert length.choices[0].delta.content is None


def test_a_delta_without_text_or_end_is_no_event() -> None:
    said = [ChoiceDelta(0, 0, "", [5])]
    assert ChunkFormatter(head(CHAT), places=[BEGINNING] * 1, usage=USAGE_AT_END).events(said) == ""


def test_usage_comes_last_and_only_where_it_is_requested() -> None:
    asked = ChunkFormatter(head(CHAT), places=[BEGINNING] * 1, usage=USAGE_AT_END)
    ending = asked.ending(USAGE)
    assert ending.endswith("\n\ndata: [DONE]\n\n")
    (chunk,) = chunks(ending.removesuffix("data: [DONE]\n\n"))
    assert chunk.choices == []
    assert chunk.usage is not None
    assert chunk.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert events(asked.events([ChoiceDelta(0, 0, "x")]))[0]["usage"] is None
    silent = ChunkFormatter(head(CHAT), places=[BEGINNING] * 1)
    assert silent.ending(USAGE) == "data: [DONE]\n\n"
    assert "usage" not in events(silent.events([ChoiceDelta(0, 0, "x")]))[0]


def test_each_chunk_has_the_usage_of_its_choice_where_that_is_requested() -> None:
    stream = ChunkFormatter(head(CHAT), places=[BEGINNING] * 2, usage=USAGE_IN_ALL, prompt_tokens=3)
    said = [
        ChoiceDelta(0, 0, "x", [5]),
        ChoiceDelta(1, 0, "y", [5, 6, 7]),
        ChoiceDelta(0, 1, "z", [6], finish_reason=STOP),
    ]
    counted = [chunk.usage for chunk in chunks(stream.opening() + stream.events(said))]
    assert [usage and usage.completion_tokens for usage in counted] == [0, 0, 1, 3, 2, 2]
    assert [usage and usage.total_tokens for usage in counted] == [3, 3, 4, 6, 5, 5]


def test_usage_names_the_prompts_tokens_that_were_in_the_cache() -> None:
    cached = Usage(prompt_tokens=30, output_tokens=4, cached_prompt_tokens=16)
    stream = ChunkFormatter(head(COMPLETION), places=[BEGINNING], usage=USAGE_AT_END)
    (last,) = events(stream.ending(cached).removesuffix("data: [DONE]\n\n"))
    answer = ChatCompletion.model_validate_json(
        response_body(head(CHAT), RequestOutcome(choices=OUTCOME.choices, usage=cached)),
        strict=True,
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 16
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 16}


def test_a_completions_stream_has_text_and_no_roles() -> None:
    stream = ChunkFormatter(head(COMPLETION), places=[BEGINNING] * 2)
    assert stream.opening() == ""
    (only,) = events(stream.events([ChoiceDelta(1, 0, AWKWARD, [5], finish_reason=STOP)]))
    # As the client does it: its type has no null reason, though every stream of OpenAI's has.
    read = Completion.construct(**only)
    assert (read.id, read.object) == ("cmpl-abc", "text_completion")
    assert (read.choices[0].text, read.choices[0].index) == (AWKWARD, 1)
    assert read.choices[0].finish_reason == "stop"
    (end,) = events(stream.events([ChoiceDelta(0, 0, finish_reason=LENGTH)]))
    assert (end["choices"][0]["text"], end["choices"][0]["finish_reason"]) == ("", "length")


def test_usage_so_far_is_in_chunks_only_where_usage_is_requested() -> None:
    for included in (False, True):
        usage = StreamOptions(include_usage=included, continuous_usage_stats=True)
        stream = ChunkFormatter(head(COMPLETION), places=[BEGINNING], usage=usage, prompt_tokens=3)
        (event,) = events(stream.events([ChoiceDelta(0, 0, "a", [5])]))
        assert (event.get("usage") is not None) == included


OUTCOME = RequestOutcome(
    choices=[
        Choice(index=0, text=AWKWARD, token_ids=[1, 2], finish_reason=STOP),
        Choice(index=1, text="", token_ids=[3, 4], finish_reason=LENGTH),
    ],
    usage=USAGE,
)


def test_a_whole_chat_answer_reads_as_openais() -> None:
    read = ChatCompletion.model_validate_json(response_body(head(CHAT), OUTCOME), strict=True)
    assert (read.id, read.model, read.system_fingerprint) == ("chatcmpl-abc", "valley", "fp_1")
    assert [choice.message.content for choice in read.choices] == [AWKWARD, ""]
    assert [choice.finish_reason for choice in read.choices] == ["stop", "length"]
    assert read.usage is not None
    assert (read.usage.prompt_tokens, read.usage.completion_tokens) == (3, 4)
    assert read.usage.total_tokens == 7


def test_a_whole_completion_reads_as_openais() -> None:
    read = Completion.model_validate_json(response_body(head(COMPLETION), OUTCOME), strict=True)
    assert [choice.text for choice in read.choices] == [AWKWARD, ""]
    assert [choice.finish_reason for choice in read.choices] == ["stop", "length"]


ERRORS: list[tuple[HeadraceError, int, str, str, str | None]] = [
    (
        InvalidRequest("m", field="n"),
        400,
        "invalid_request_error",
        "invalid_request",
        "n",
    ),
    (
        ContextLengthExceeded("m"),
        400,
        "invalid_request_error",
        "context_length_exceeded",
        None,
    ),
    (Unsupported("m"), 400, "invalid_request_error", "unsupported", None),
    (ModelNotFound("m"), 404, "invalid_request_error", "model_not_found", None),
    (LaneFull("m"), 429, "rate_limit_error", "lane_full", None),
    (NoWorker("m"), 503, "server_error", "no_worker", None),
    (EngineFailed("m"), 500, "server_error", "engine_failed", None),
]


@pytest.mark.parametrize(("error", "status", "kind", "code", "param"), ERRORS)
def test_errors_have_openais_shape(
    error: HeadraceError, status: int, kind: str, code: str, param: str | None
) -> None:
    assert http_status(error) == status
    assert openai_error(error) == {
        "error": {"message": "m", "type": kind, "param": param, "code": code}
    }


def test_a_retryable_error_has_the_time_of_the_retry() -> None:
    headers = dict(error_headers(LaneFull("m", retry_after_s=1.25)))
    assert headers == {"retry-after": "2", "retry-after-ms": "1250", "x-should-retry": "true"}


@pytest.mark.parametrize("error", [RequestExists("m"), AttemptsExhausted("m"), Unsupported("m")])
def test_an_error_that_would_occur_again_is_not_to_be_retried(error: HeadraceError) -> None:
    assert error_headers(error) == (("x-should-retry", "false"),)


def test_server_errors_leave_the_retry_to_the_client() -> None:
    assert error_headers(EngineFailed("m")) == ()

"""The table of docs/errors.md: every error, as HTTP, gRPC and the SDKs show it.

PYTHONPATH=tests python tests/helpers/error_reference.py docs/errors.md

What an SDK raises, and whether it tries again, is found by giving it the answer. Headrace's client
is given it twice: over REST, and as the google.rpc.Status of gRPC.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai

from headrace.client import Retries
from headrace.errors import CapacityError, HeadraceError, errors_by_reason
from headrace.rpc.http_errors import http_status, openai_error, read_error
from headrace.rpc.status import from_status, to_status
from headrace_gateway.api.http.errors import ANTHROPIC_ERRORS, OPENAI_ERRORS, ErrorFormat

_URL = "http://mesh.test"

INTRODUCTION = """\
# Errors

This page is made from the code (`tests/helpers/error_reference.py`); a test holds it against what
the `openai` and `anthropic` packages do with each answer.

An error of `/v1` has OpenAI's body, `{"error": {"message", "type", "param", "code"}}`; one of
`/v1/messages` has Anthropic's, and what is 503 elsewhere is 529 there; one of `/v2` and of gRPC is
a `google.rpc.Status` with an `ErrorInfo`, whose `reason` is the code in capitals.
The message states the fact, the field, the limit and what to do. A stream that has begun has its
status already: its last event is the same body.

**Again**: whether the headers `x-should-retry`, `Retry-After` and `retry-after-ms` say to send it
again, as both SDKs then do by themselves (`max_retries`, 2 if not set). Nothing was computed or
charged where an error says so, but for `internal` and `engine_failed`.
[`headrace.client`](python_client.md#errors) sends again what has "after `Retry-After`".

| `code` | HTTP | gRPC | `type` | OpenAI's SDK | Anthropic's | `headrace.client` | again | when |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class SdkAnswer:
    raised: str
    retried: bool


def answer_of_the_sdk(error: HeadraceError) -> SdkAnswer:
    """Give OpenAI's client the answer of `error`, and see what it does."""

    def call(http: Any) -> None:
        client = openai.OpenAI(
            api_key="unused", base_url=f"{_URL}/v1", http_client=http, max_retries=1
        )
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])

    return _answer(call, OPENAI_ERRORS, error, openai.APIStatusError)


def answer_of_anthropics_sdk(error: HeadraceError) -> SdkAnswer:
    """Give Anthropic's client the answer of `error`, and see what it does."""

    def call(http: Any) -> None:
        client = anthropic.Anthropic(
            api_key="unused", base_url=_URL, http_client=http, max_retries=1
        )
        messages: Any = [{"role": "user", "content": "?"}]
        client.messages.create(model="m", messages=messages, max_tokens=1)

    return _answer(call, ANTHROPIC_ERRORS, error, anthropic.APIStatusError)


def answers_of_the_client(error: HeadraceError) -> list[HeadraceError]:
    """Give Headrace's client the answer of `error`, over REST and over gRPC."""
    answer = OPENAI_ERRORS.error_response(error, "request")
    over_rest = read_error(answer.status, dict(answer.headers), answer.body)
    assert over_rest is not None, "the client took an answer of the mesh for a proxy's"
    return [over_rest, from_status(to_status(error))]


def is_retried_by_the_client(error: HeadraceError) -> bool:
    """Whether Headrace's client sends a call with this error again."""
    pause_s = Retries().pause_s(error, attempt=1, elapsed_s=0, repeatable=True, drawn=0.5)
    return pause_s is not None


def _answer(
    call: Callable[[Any], None],
    errors: ErrorFormat,
    error: HeadraceError,
    raises: type[Exception],
) -> SdkAnswer:
    calls = 0

    def refuse(_: httpx2.Request) -> httpx2.Response:
        nonlocal calls
        calls += 1
        answer = errors.error_response(error, "request")
        json_body = ("content-type", "application/json")
        return httpx2.Response(
            answer.status, headers=[*answer.headers, json_body], content=answer.body
        )

    with httpx2.Client(transport=httpx2.MockTransport(refuse)) as http:
        try:
            call(http)
        except raises as raised:
            return SdkAnswer(type(raised).__name__, calls > 1)
    raise AssertionError("the SDK took an error for an answer")


def examples() -> Iterator[HeadraceError]:
    """One of each error, with a time to wait where it comes with one."""
    for kind in errors_by_reason().values():
        waits = issubclass(kind, CapacityError)
        yield kind("refused", retry_after_s=0.001 if waits else None)


def page() -> str:
    return INTRODUCTION + "".join(f"{_row(error)}\n" for error in examples())


def _row(error: HeadraceError) -> str:
    body = openai_error(error)["error"]
    sdk = answer_of_the_sdk(error)
    cells = (
        f"`{body['code']}`",
        str(http_status(error)),
        error.code.name,
        f"`{body['type']}`",
        f"`{sdk.raised}`",
        f"`{answer_of_anthropics_sdk(error).raised}`",
        f"`{type(answers_of_the_client(error)[0]).__name__}`",
        _sent_again(error, sdk),
        _sentence(error),
    )
    return f"| {' | '.join(cells)} |"


def _sent_again(error: HeadraceError, sdk: SdkAnswer) -> str:
    if not sdk.retried:
        return "no"
    return "yes, after `Retry-After`" if error.retry_after_s is not None else "yes"


def _sentence(error: HeadraceError) -> str:
    words = " ".join((inspect.getdoc(type(error)) or "").split())
    return words.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())

"""The table of docs/errors.md: every error, as HTTP, gRPC and the SDKs show it.

PYTHONPATH=tests python tests/helpers/error_reference.py docs/errors.md

What an SDK raises, and whether it tries again, is found by giving it the answer.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from headrace.errors import CapacityError, HeadraceError, InternalError, errors_by_reason
from headrace.rpc.http_errors import error_headers, http_status, openai_error

INTRODUCTION = """\
# Errors

This page is made from the code (`tests/helpers/error_reference.py`); a test holds it against what
the `openai` package does with each answer.

An error of `/v1` has OpenAI's body, `{"error": {"message", "type", "param", "code"}}`; one of `/v2`
and of gRPC is a `google.rpc.Status` with an `ErrorInfo`, whose `reason` is the code in capitals.
The message states the fact, the field, the limit and what to do. A stream that has begun has its
status already: its last event is the same body.

**Sent again** is what the headers `x-should-retry`, `Retry-After` and `retry-after-ms` say, and
what OpenAI's SDK then does by itself (`max_retries`, 2 if not set). Nothing was computed or charged
where an error says that it can be sent again, but for `internal` and `engine_failed`.

| `code` | HTTP | gRPC | `type` | OpenAI's SDK raises | `headrace.errors` | sent again | when |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class SdkAnswer:
    raised: str
    retried: bool


def answer_of_the_sdk(error: HeadraceError) -> SdkAnswer:
    """Give OpenAI's client the answer of `error`, and see what it does."""
    calls = 0

    def refuse(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(
            http_status(error), headers=list(error_headers(error)), json=openai_error(error)
        )

    http: Any = httpx.Client(transport=httpx.MockTransport(refuse))
    client: Any = openai.OpenAI(
        api_key="unused", base_url="http://mesh.test/v1", http_client=http, max_retries=1
    )
    with client:
        try:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
        except openai.APIStatusError as raised:
            return SdkAnswer(type(raised).__name__, calls > 1)
    raise AssertionError("the SDK took an error for an answer")


def examples() -> Iterator[HeadraceError]:
    """One of each error, with a time to wait where it comes with one."""
    kinds: list[type[HeadraceError]] = [InternalError, *errors_by_reason().values()]
    kinds.remove(HeadraceError)
    for kind in kinds:
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
        f"`{type(error).__name__}`",
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

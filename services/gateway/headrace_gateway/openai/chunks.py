"""Pure room: what has been said, as OpenAI's JSON and server-sent events.

A chunk is a prefix and a suffix that are made once, with the text between them:
a tenth of the time that `json.dumps` of the whole takes. The text is escaped to
ASCII, because some clients split lines at U+2028 and its like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, Usage
from headrace_gateway.transcript import UNFINISHED, Said

_FINISH_REASONS = {
    FinishReason.FINISH_REASON_STOP: "stop",
    FinishReason.FINISH_REASON_LENGTH: "length",
}


@dataclass(frozen=True, slots=True)
class Form:
    """What tells chat from plain completions."""

    prefix: str
    """Of the id."""
    whole: str
    chunk: str
    """`object` of the whole answer and of a chunk."""
    opens: bool
    """The first chunk of a choice has its role and nothing else."""


CHAT = Form("chatcmpl-", "chat.completion", "chat.completion.chunk", opens=True)
COMPLETION = Form("cmpl-", "text_completion", "text_completion", opens=False)


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of an answer repeats."""

    request_id: str
    model: str
    created: int
    """Seconds of Unix time."""
    fingerprint: str
    """Equal for equal weights."""

    def fields(self, form: Form, kind: str) -> dict[str, Any]:
        return {
            "id": form.prefix + self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Chunks:
    """Server-sent events of one answer."""

    def __init__(self, form: Form, head: Head, *, choices: int, include_usage: bool) -> None:
        self._head = json.dumps(head.fields(form, form.chunk), separators=(",", ":"))[:-1]
        self._start = f'data: {self._head},"choices":[{{"index":'
        self._end = f"}}]{_NO_USAGE if include_usage else ''}}}\n\n"
        self._open, self._close = ('"delta":{"content":', "}") if form.opens else ('"text":', "")
        self._nothing = '"delta":{}' if form.opens else '"text":""'
        self._choices = choices if form.opens else 0
        self._include_usage = include_usage

    def opening(self) -> str:
        """The first event of each choice; empty where the form has none."""
        role = '"delta":{"role":"assistant","content":""}'
        return "".join(self._event(choice, role, "null") for choice in range(self._choices))

    def said(self, news: Iterable[Said]) -> str:
        """Events for the news; empty where there is neither text nor an end."""
        events = []
        for said in news:
            if said.text:
                content = f"{self._open}{json.dumps(said.text)}{self._close}"
                events.append(self._event(said.choice, content, "null"))
            if said.finish_reason != UNFINISHED:
                reason = f'"{_FINISH_REASONS[said.finish_reason]}"'
                events.append(self._event(said.choice, self._nothing, reason))
        return "".join(events)

    def ending(self, usage: Usage) -> str:
        """After the last of a good answer: usage, if it was asked for, and the mark of the end."""
        counted = json.dumps(_usage(usage), separators=(",", ":"))
        event = f'data: {self._head},"choices":[],"usage":{counted}}}\n\n'
        return f"{event if self._include_usage else ''}data: [DONE]\n\n"

    def _event(self, choice: int, content: str, reason: str) -> str:
        return (
            f'{self._start}{choice},{content},"logprobs":null,"finish_reason":{reason}{self._end}'
        )


_NO_USAGE = ',"usage":null'


def whole(form: Form, head: Head, outcome: RequestOutcome) -> bytes:
    """An answer in one piece."""
    body = head.fields(form, form.whole) | {
        "choices": [_choice(form, choice) for choice in outcome.choices],
        "usage": _usage(outcome.usage),
    }
    return json.dumps(body).encode()


def _choice(form: Form, choice: Choice) -> dict[str, Any]:
    said: dict[str, Any] = {"text": choice.text}
    if form.opens:
        said = {"message": {"role": "assistant", "content": choice.text, "refusal": None}}
    reason = _FINISH_REASONS[choice.finish_reason]
    return {"index": choice.index, **said, "logprobs": None, "finish_reason": reason}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    }

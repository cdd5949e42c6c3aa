"""Pure room: deltas and answers as OpenAI's JSON and server-sent events.

A chunk is a prefix and a suffix that are made once, with the text between them:
a tenth of the time that `json.dumps` of the whole takes. The text is escaped to
ASCII, because some clients split lines at U+2028 and its like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from headrace.v1.common_pb2 import Choice, RequestOutcome, Usage
from headrace.v1.requests_pb2 import Request
from headrace_gateway.api.bodies.generation import StreamOptions
from headrace_gateway.api.bodies.tools import tool_call
from headrace_gateway.api.http.deliver import comment
from headrace_gateway.api.openai.logprobs_formatter import ChoiceContent, LogprobsFormatter
from headrace_gateway.api.openai.members import (
    calls_member,
    finish_reason,
    ids_member,
    prompt_member,
    reasoning_members,
    usage_json,
)
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta
from headrace_gateway.output.position import EventIds, NoIds, Offset
from headrace_gateway.request.generation import Queued


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """What differs between chat and plain completions."""

    prefix: str
    """Prefix of the response's id."""
    response_body: str
    chunk: str
    """`object` of the whole answer and of a chunk."""
    opens: bool
    """The first chunk of a choice has its role and nothing else."""


CHAT = ResponseShape("chatcmpl-", "chat.completion", "chat.completion.chunk", opens=True)
COMPLETION = ResponseShape("cmpl-", "text_completion", "text_completion", opens=False)


@dataclass(frozen=True, slots=True)
class ResponseFields:
    """The fields that every chunk of a response repeats."""

    shape: ResponseShape
    request_id: str
    model: str
    created: int
    """Unix time in seconds."""
    fingerprint: str
    """Equal for equal weights."""
    first_choice: int = 0
    """Index of its first choice; more than 0 for the later prompts of a call with several."""

    @classmethod
    def of(cls, shape: ResponseShape, answer: Answer, *, first_choice: int = 0) -> Self:
        request = answer.request
        # Why the arrival: a client that resumes the stream gets the same time in every chunk.
        created, fingerprint = int(answer.arrival_s), f"fp_{request.weights}"
        return cls(shape, request.request_id, request.model, created, fingerprint, first_choice)

    def as_json(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.shape.prefix + self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class ChunkFormatter:
    """Formats one answer as server-sent events or, as a `ResponseFormat`, as one body."""

    eager = False

    def __init__(
        self,
        head: ResponseFields,
        *,
        places: Sequence[Offset],
        usage: StreamOptions | None = None,
        prompt_tokens: int = 0,
        ids: bool = False,
        formatter: LogprobsFormatter | None = None,
        reasoning: bool = True,
    ) -> None:
        """
        Args:
            places: what the reader has of each choice.
            usage: in which chunks usage is sent; unset: in none.
            prompt_tokens: for the usage of a choice so far, where each chunk has that.
            ids: whether each event has an id, from which its reader can resume.
            formatter: set if more than text was requested.
            reasoning: whether reasoning is sent.
        """
        shape, usage = head.shape, usage or StreamOptions()
        self._fields = head
        self._head = json.dumps(head.as_json(shape.chunk), separators=(",", ":"))[:-1]
        self._start = f'data: {self._head},"choices":[{{"index":'
        self._include_usage = bool(usage.include_usage)
        counts = usage.include_usage and usage.continuous_usage_stats
        self._prompt_tokens = prompt_tokens if counts else None
        self._end = f"}}]{_NO_USAGE if self._include_usage else ''}}}\n\n"
        self._open, self._close = ('"delta":{"content":', "}") if shape.opens else ('"text":', "")
        self._nothing = '"delta":{}' if shape.opens else '"text":""'
        self._called: set[int] = set()
        """Indices of choices that have called a tool."""
        unopened = (choice for choice, place in enumerate(places) if not place.opened)
        self._unopened = list(unopened) if shape.opens else []
        # Why not always: clients that read nothing but `data:` lines fail at any other line.
        self._ids = EventIds(head.request_id, places) if ids else NoIds()
        self._has_ids = ids
        self._formatter, self._reasoning = formatter, reasoning

    def opening(self) -> str:
        """Return the first event of each choice that is not open yet; completions have none."""
        role = '"delta":{"role":"assistant","content":""}'
        ids = () if self._formatter is None else self._formatter.prompt_ids(chat=True)
        more = [ids_member(ids, "prompt_token_ids"), *[""] * len(self._unopened)]
        return "".join(
            self._event(self._ids.opened(choice), (choice, 0), role, "null", more=each)
            for choice, each in zip(self._unopened, more, strict=False)
        )

    def events(self, deltas: Iterable[ChoiceDelta]) -> str:
        """Return the events of these deltas; empty where there is neither text nor an end."""
        return "".join([event for delta in deltas for event in self._events(delta)])

    def _events(self, delta: ChoiceDelta) -> Iterator[str]:
        """Yield one event for tokens and one for the end; in completions one event for both.

        A reader that is cut off between two events has all of the first and nothing of the second.
        """
        choice, seen = delta.choice, delta.end_index
        ends = delta.finish_reason != UNFINISHED
        content, logprobs = self._content(delta)
        if delta.replayed:
            return
        # Why: vLLM's clients count a completion's events as tokens; OpenAI ends chats so.
        in_one = ends and (not delta.token_ids or not self._fields.shape.opens)
        if content and not in_one:
            line = self._ids.after_tokens(choice, seen)
            yield self._event(line, (choice, seen), content, "null", logprobs)
            content, logprobs = "", "null"
        if ends:
            reason = f'"{finish_reason(delta.finish_reason, choice in self._called)}"'
            line = self._ids.after_tokens(choice, seen, ended=True)
            yield self._event(line, (choice, seen), content or self._nothing, reason, logprobs)

    def _content(self, delta: ChoiceDelta) -> tuple[str, str]:
        """Return the members of an event's choice, empty if there are none, and its logprobs."""
        if delta.calls:
            self._called.add(delta.choice)
        formatter = self._formatter
        piece = ChoiceContent(delta.text) if formatter is None else formatter.delta_content(delta)
        reasoned = delta.reasoning if self._reasoning else ""
        reasoning = reasoning_members(reasoned) if reasoned else ""
        if piece is None or (formatter is None and not piece.text):
            parts = [reasoning] if reasoning else []
            parts += [calls_member(delta.calls)] if delta.calls else []
            return (f'"delta":{{{",".join(parts)}}}' if parts else ""), "null"
        content = f"{self._open}{json.dumps(piece.text)}"
        if reasoning:
            content += f",{reasoning}"
        if delta.calls:
            content += f",{calls_member(delta.calls)}"
        ids = ids_member(piece.token_ids) + ids_member(piece.prompt_ids, "prompt_token_ids")
        return f"{content}{self._close}{ids}", piece.logprobs

    def ending(self, usage: Usage) -> str:
        """Return what follows a complete answer: usage, where it is requested, and `[DONE]`."""
        counted = json.dumps(usage_json(usage), separators=(",", ":"))
        event = f'data: {self._head},"choices":[],"usage":{counted}}}\n\n'
        return f"{event if self._include_usage else ''}data: [DONE]\n\n"

    def queued(self, queued: Queued) -> str:
        # Why not to all: benchmarks read each line as data, and their requests wait by the hundred.
        is_shown = self._has_ids or queued.waits_for_quota
        return self.keep_alive(queued) if is_shown else ""

    def keep_alive(self, queued: Queued | None) -> str:
        # Why by ids: a client that gets them reads all of server-sent events, comments too.
        return comment(queued, ids=self._has_ids)

    def response_body(self, outcome: RequestOutcome) -> bytes:
        if not self._reasoning:
            outcome = _without_reasoning(outcome)
        return response_body(self._fields, outcome, self._formatter)

    def _event(
        self,
        line: str,
        place: tuple[int, int],
        content: str,
        reason: str,
        logprobs: str = "null",
        *,
        more: str = "",
    ) -> str:
        """Return an event.

        Args:
            place: its choice, and how many tokens of that have been sent with this event.
            more: a member of the event, after its choice.
        """
        choice, seen = place
        end = self._end if self._prompt_tokens is None else self._counted(self._prompt_tokens, seen)
        if more:
            end = f"{end[:2]}{more}{end[2:]}"
        index = self._fields.first_choice + choice
        return (
            f'{line}{self._start}{index},{content},"logprobs":{logprobs},'
            f'"finish_reason":{reason}{end}'
        )

    def _counted(self, prompt_tokens: int, seen: int) -> str:
        """Return an `_end` with the usage of this choice alone, as vLLM has it."""
        return (
            f'}}],"usage":{{"prompt_tokens":{prompt_tokens},"completion_tokens":{seen},'
            f'"total_tokens":{prompt_tokens + seen}}}}}\n\n'
        )


_NO_USAGE = ',"usage":null'


def _without_reasoning(outcome: RequestOutcome) -> RequestOutcome:
    # Why a copy: the outcome is also stored.
    kept = RequestOutcome()
    kept.CopyFrom(outcome)
    for choice in kept.choices:
        choice.ClearField("reasoning")
    return kept


def response_body(
    head: ResponseFields, outcome: RequestOutcome, formatter: LogprobsFormatter | None = None
) -> bytes:
    """Return a whole response."""
    choices = choices_json(head, outcome, formatter)
    of_prompt = prompt_member(formatter, outcome.choices[0]) if head.shape.opens else ""
    if formatter is not None:
        of_prompt += ids_member(formatter.prompt_ids(chat=True), "prompt_token_ids")
    opening = response_start(head, outcome.usage)
    return b"%s%s]%s}" % (opening, choices, of_prompt.encode())


def response_start(head: ResponseFields, usage: Usage) -> bytes:
    """Return a whole response up to its first choice; `]}` must follow its last."""
    body = json.dumps(head.as_json(head.shape.response_body) | {"usage": usage_json(usage)})
    return f'{body[:-1]},"choices":['.encode()


def choices_json(
    head: ResponseFields, outcome: RequestOutcome, formatter: LogprobsFormatter | None
) -> bytes:
    """Return the choices of a response, separated by commas."""
    return ",".join(_choice(head, choice, formatter) for choice in outcome.choices).encode()


def accepted_body(shape: ResponseShape, begun: Request) -> bytes:
    """Return the response to a background request, which has nothing but its id yet.

    OpenAI has no such answer on these paths; the fields are those of its background Responses.
    """
    body = {
        "id": shape.prefix + begun.request_id,
        "object": shape.response_body,
        "created": begun.create_time.seconds,
        "model": begun.model,
        "background": True,
        "status": "queued",
        "request_id": begun.request_id,
        "expires_at": begun.expire_time.seconds,
        "choices": [],
    }
    return json.dumps(body).encode()


def _choice(head: ResponseFields, choice: Choice, formatter: LogprobsFormatter | None) -> str:
    piece = ChoiceContent(choice.text) if formatter is None else formatter.choice_content(choice)
    content: dict[str, Any] = {"text": piece.text}
    opens = head.shape.opens
    if opens:
        content = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
    if choice.reasoning:
        content["message"]["content"] = piece.text or None
        content["message"] |= {"reasoning_content": choice.reasoning, "reasoning": choice.reasoning}
    if choice.tool_calls:
        content["message"]["tool_calls"] = [
            tool_call(call.call_id, call.name, call.arguments) for call in choice.tool_calls
        ]
        content["message"]["content"] = piece.text or None
    # Of an answer that a limit has ended, choices have no reason of their own.
    ended, called = choice.finish_reason != UNFINISHED, bool(choice.tool_calls)
    reason = finish_reason(choice.finish_reason, called) if ended else None
    index = head.first_choice + choice.index
    body = json.dumps({"index": index, **content, "finish_reason": reason})
    of_prompt = "" if opens else prompt_member(formatter, choice)
    ids = ids_member(piece.token_ids) + ids_member(piece.prompt_ids, "prompt_token_ids")
    return f'{body[:-1]},"logprobs":{piece.logprobs}{ids}{of_prompt}}}'

"""Pure: the events of a response's stream, and its output items.

Events are a function of the description and of the output's tokens, taken one by one: however often
and wherever a response is read, an event has the same `sequence_number`. So a client that has the
events up to 7 gets the rest by reading it again without the first eight. For a background response
"Hi", then a call `f({})`:

    0 response.created                           status queued
    1 response.queued
    2 response.in_progress
    3 response.output_item.added                 message, output_index 0
    4 response.content_part.added
    5 response.output_text.delta                 "Hi"
    6 response.output_text.done
    7 response.content_part.done
    8 response.output_item.done                  message
    9 response.output_item.added                 function_call, output_index 1
   10 response.function_call_arguments.delta     "{}"
   11 response.function_call_arguments.done
   12 response.output_item.done
   13 response.completed                         with all of the output

What is not in the background has no 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from headrace.logprobs import Row
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.api.responses.wire.resource import (
    CANCELLED,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    INCOMPLETE,
    QUEUED,
    Description,
    Ending,
    Json,
    response_json,
)
from headrace_gateway.api.responses.wire.writers import CallWriter, ItemWriter, writer_of
from headrace_gateway.models.token_text import TokenTexts
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta

_ENDS = {COMPLETED: "completed", INCOMPLETE: "incomplete", FAILED: "failed", CANCELLED: "failed"}
_MESSAGE, _REASONING = "message", "reasoning"


class ResponseEvents:
    """Makes the events of one response, and keeps its output items."""

    def __init__(self, description: Description, spelling: TokenTexts | None = None) -> None:
        """`spelling`: of the model's tokens, where log probabilities are requested."""
        self._description, self._spelling = description, spelling
        self._number = -1
        self._items: list[ItemWriter] = []
        self._held: list[Json] = []
        """Log probabilities of tokens whose text is not there yet."""
        self.finish_reason: FinishReason.ValueType = UNFINISHED

    def opening(self) -> Iterator[Json]:
        status = QUEUED if self._description.background else IN_PROGRESS
        yield self._of_response("created", status)
        if self._description.background:
            yield self._of_response("queued", status)
        yield self._of_response("in_progress", IN_PROGRESS)

    def take(self, delta: ChoiceDelta) -> Iterator[Json]:
        """Yield the events of a delta of one token, or of the end."""
        if delta.finish_reason != UNFINISHED:
            self.finish_reason = delta.finish_reason
        logprobs = self._logprobs(delta)
        if reasoning := delta.reasoning:
            yield from self._add(_REASONING, reasoning)
        if delta.text:
            yield from self._add(_MESSAGE, delta.text, logprobs)
        for piece in delta.calls:
            if piece.name is not None:
                yield from self._close()
                call = CallWriter(self._place(), piece.call_id, piece.name)
                yield from self._open(call)
            if piece.arguments:
                yield from map(self._numbered, self._items[-1].add(piece.arguments, []))

    def ending(self, ending: Ending) -> Iterator[Json]:
        """Yield what follows the last delta."""
        status = ending.status
        if not self._items and status == COMPLETED:
            yield from self._open(writer_of(_MESSAGE, self._place(), self._description))
        yield from self._close("completed" if status == COMPLETED else "incomplete")
        yield self._of_response(_ENDS[status], status, ending)

    def response(self, ending: Ending) -> Json:
        """Return the response as it is at its end. Call it in place of `ending`, or after it."""
        for _ in self.ending(ending):
            pass
        return response_json(self._description, ending.status, self._output(), ending)

    def _output(self) -> list[Json]:
        return [item.item() for item in self._items]

    def _add(self, kind: str, text: str, logprobs: list[Json] | None = None) -> Iterator[Json]:
        if not self._items or self._items[-1].kind != kind:
            yield from self._close()
            yield from self._open(writer_of(kind, self._place(), self._description))
        yield from map(self._numbered, self._items[-1].add(text, logprobs or []))

    def _open(self, item: ItemWriter) -> Iterator[Json]:
        self._items.append(item)
        yield from map(self._numbered, item.opening())

    def _close(self, status: str = "completed") -> Iterator[Json]:
        if self._items and not self._items[-1].is_closed:
            yield from map(self._numbered, self._items[-1].ending(status))

    def _place(self) -> tuple[str, int]:
        return self._description.request_id, len(self._items)

    def _logprobs(self, delta: ChoiceDelta) -> list[Json]:
        """Return those of the text of a delta: its own, and of tokens that had no text yet."""
        if self._spelling is None or delta.logprobs is None:
            return []
        rows = zip(delta.token_ids, delta.logprobs.rows(), strict=True)
        self._held += [_logprob(token_id, row, self._spelling) for token_id, row in rows]
        is_of_text = bool(delta.text)
        if not is_of_text and not delta.calls and not delta.reasoning:
            return []
        held, self._held = self._held, []
        return held if is_of_text else []

    def _of_response(self, name: str, status: str, ending: Ending | None = None) -> Json:
        response = response_json(self._description, status, self._output(), ending)
        return self._numbered({"type": f"response.{name}", "response": response})

    def _numbered(self, event: Json) -> Json:
        self._number += 1
        return {**event, "sequence_number": self._number}


def written(event: Json) -> str:
    """Return an event as a server-sent one."""
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"


def _logprob(token_id: int, row: Row, spelling: TokenTexts) -> Json:
    own, top_ids, top = row
    likeliest = [
        {**_token(other, spelling), "logprob": logprob}
        for other, logprob in zip(top_ids, top, strict=True)
    ]
    return {**_token(token_id, spelling), "logprob": own, "top_logprobs": likeliest}


def _token(token_id: int, spelling: TokenTexts) -> Json:
    token: Json = json.loads(f"{{{spelling[token_id].members}}}")
    return token

"""Pure: output items of a response as they grow, and the events of that.

Events have no numbers here; `events` gives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from headrace_gateway.api.responses.wire.items import sealed
from headrace_gateway.api.responses.wire.resource import Description, Json

Place = tuple[str, int]
"""The id of the request, and the item's index in the output."""


class ItemWriter(Protocol):
    @property
    def kind(self) -> str:
        """The item's type."""
        ...

    @property
    def is_closed(self) -> bool: ...

    def opening(self) -> Iterator[Json]: ...

    def add(self, text: str, logprobs: list[Json]) -> Iterator[Json]: ...

    def ending(self, status: str) -> Iterator[Json]:
        """Close it. `status`: completed or incomplete."""
        ...

    def item(self) -> Json:
        """Return it as it is now."""
        ...


def writer_of(kind: str, place: Place, description: Description) -> ItemWriter:
    """Return the writer of a new item of the type `message` or `reasoning`."""
    if kind == "message":
        return MessageWriter(place)
    return ReasoningWriter(
        place, summarized=description.summarized, encrypted=description.encrypted
    )


class _Writer:
    kind = ""
    prefix = ""

    def __init__(self, place: Place) -> None:
        request_id, self._index = place
        self._id = f"{self.prefix}{request_id}_{self._index}"
        self._texts: list[str] = []
        self._status = "in_progress"

    @property
    def is_closed(self) -> bool:
        return self._status != "in_progress"

    @property
    def _text(self) -> str:
        return "".join(self._texts)

    def item(self) -> Json:
        raise NotImplementedError

    def _at(self, **more: object) -> Json:
        return {"item_id": self._id, "output_index": self._index, **more}

    def _added(self) -> Json:
        return {
            "type": "response.output_item.added",
            "output_index": self._index,
            "item": self.item(),
        }

    def _done(self) -> Json:
        return {
            "type": "response.output_item.done",
            "output_index": self._index,
            "item": self.item(),
        }


class MessageWriter(_Writer):
    kind, prefix = "message", "msg_"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._logprobs: list[Json] = []
        self._has_part = False

    def opening(self) -> Iterator[Json]:
        yield self._added()
        self._has_part = True
        yield {"type": "response.content_part.added", **self._of_part(part=self._part())}

    def add(self, text: str, logprobs: list[Json]) -> Iterator[Json]:
        self._texts.append(text)
        self._logprobs += logprobs
        yield {
            "type": "response.output_text.delta",
            **self._of_part(delta=text, logprobs=_without_bytes(logprobs)),
        }

    def ending(self, status: str) -> Iterator[Json]:
        self._status = status
        logprobs = _without_bytes(self._logprobs)
        yield {
            "type": "response.output_text.done",
            **self._of_part(text=self._text, logprobs=logprobs),
        }
        yield {"type": "response.content_part.done", **self._of_part(part=self._part())}
        yield self._done()

    def item(self) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "status": self._status,
            "role": "assistant",
            "content": [self._part()] if self._has_part else [],
        }

    def _part(self) -> Json:
        return {
            "type": "output_text",
            "text": self._text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }

    def _of_part(self, **more: object) -> Json:
        return self._at(content_index=0, **more)


class ReasoningWriter(_Writer):
    """Its text is the content, or, if a summary is requested, that: nothing is summarized."""

    kind, prefix = "reasoning", "rs_"

    def __init__(self, place: Place, *, summarized: bool, encrypted: bool) -> None:
        super().__init__(place)
        self._summarized, self._encrypted = summarized, encrypted
        self._has_part = False

    def opening(self) -> Iterator[Json]:
        yield self._added()
        self._has_part = True
        yield self._of_part("part.added", part=self._part())

    def add(self, text: str, logprobs: list[Json]) -> Iterator[Json]:
        self._texts.append(text)
        yield self._of_part("text.delta", delta=text)

    def ending(self, status: str) -> Iterator[Json]:
        self._status = status
        yield self._of_part("text.done", text=self._text)
        yield self._of_part("part.done", part=self._part())
        yield self._done()

    def item(self) -> Json:
        parts = [self._part()] if self._has_part else []
        shown = {"summary": parts} if self._summarized else {"summary": [], "content": parts}
        hidden = {"encrypted_content": sealed(self._text)} if self._encrypted else {}
        return {
            "id": self._id,
            "type": "reasoning",
            **shown,
            **hidden,
            "status": self._status,
        }

    def _part(self) -> Json:
        kind = "summary_text" if self._summarized else "reasoning_text"
        return {"type": kind, "text": self._text}

    def _of_part(self, name: str, **more: object) -> Json:
        if self._summarized:
            kind = f"response.reasoning_summary_{name}"
            return {"type": kind, **self._at(summary_index=0, **more)}
        prefix = "content_" if name.startswith("part") else "reasoning_"
        return {"type": f"response.{prefix}{name}", **self._at(content_index=0, **more)}


class CallWriter(_Writer):
    kind, prefix = "function_call", "fc_"

    def __init__(self, place: Place, call_id: str, name: str) -> None:
        super().__init__(place)
        self._call_id, self._name = call_id, name

    def opening(self) -> Iterator[Json]:
        yield self._added()

    def add(self, text: str, logprobs: list[Json]) -> Iterator[Json]:
        self._texts.append(text)
        yield {"type": "response.function_call_arguments.delta", **self._at(delta=text)}

    def ending(self, status: str) -> Iterator[Json]:
        self._status = status
        yield {
            "type": "response.function_call_arguments.done",
            **self._at(arguments=self._text),
        }
        yield self._done()

    def item(self) -> Json:
        return {
            "id": self._id,
            "type": "function_call",
            "status": self._status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self._text,
        }


def _without_bytes(logprobs: list[Json]) -> list[Json]:
    """Return them as events have them."""
    return [
        {
            "token": each["token"],
            "logprob": each["logprob"],
            "top_logprobs": [
                {"token": other["token"], "logprob": other["logprob"]}
                for other in each["top_logprobs"]
            ],
        }
        for each in logprobs
    ]

"""Reads answers and events by the models of Anthropic's package, which must know every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar

from anthropic.types import Message, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

Model = TypeVar("Model", bound=BaseModel)
_EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def strictly(kind: type[Model], data: str | bytes, ours: frozenset[str] = frozenset()) -> Model:
    """Return JSON as this model; types are strict, and a field that it does not have fails.

    `ours`: fields that our documentation adds.
    """
    model = kind.model_validate_json(data, strict=True)
    assert set(_unknown(model)) == ours
    return model


def message(data: str | bytes) -> Message:
    return strictly(Message, data)


def events(text: str) -> list[Any]:
    """Return the events of a stream without its pings; each is named as its data is."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    found = []
    for block in blocks:
        name, data = block.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        if value["type"] != "ping":
            found.append(_event(data.removeprefix("data: ")))
    return found


def _event(data: str) -> Any:
    event = _EVENTS.validate_json(data, strict=True)
    assert list(_unknown(event)) == []
    return event


def _unknown(value: object) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in value.model_fields_set:
            yield from _unknown(getattr(value, name))
    elif isinstance(value, list):
        for each in value:
            yield from _unknown(each)

"""What the gateway sends, held against the models of OpenAI's Python package: nothing more, nothing
less, and of no other type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def strict_response(value: Mapping[str, Any]) -> Response:
    """Return the response that this JSON is; fail where the package does not describe it."""
    found: Response = strict(Response, value)
    return found


def strict_event(value: Mapping[str, Any]) -> Any:
    """Return the event of a response's stream, likewise."""
    return _checked(_EVENT.validate_python(value, strict=True))


def strict(kind: type[Any], value: Mapping[str, Any]) -> Any:
    """Return an instance of one of the package's models, likewise."""
    return _checked(TypeAdapter(kind).validate_python(value, strict=True))


def _checked(found: Any) -> Any:
    assert list(_extras(found, type(found).__name__)) == []
    return found


def _extras(value: object, path: str) -> Iterator[str]:
    """Yield the members that the package does not describe."""
    if isinstance(value, pydantic.BaseModel):
        yield from (f"{path}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _extras(each, f"{path}[{i}]")

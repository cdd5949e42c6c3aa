"""Strict proto3 JSON: what `json_format` lets pass or loses is refused, with the field's path."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pydantic_core import from_json

from headrace.errors import InvalidRequest

AnyMessage = TypeVar("AnyMessage", bound=Message)

_UNKNOWN = re.compile(r'has no field named "([^"]*)" at "\w+\.?([^"]*)"')
_STEP = re.compile(r"Failed to parse (\w+) field: ")
_PLACE = re.compile(r" at \w+\.([\w.\[\]]+?)\.*$")
_LONGEST_NAME = 64


def parse(kind: type[AnyMessage], data: bytes, *, max_bytes: int) -> AnyMessage:
    """Read a body. Names may be snake_case or camelCase; null is the same as absent.

    Raises:
        InvalidRequest: it is too long, no JSON, or a field is unknown or of a wrong type.
    """
    if len(data) > max_bytes:
        raise InvalidRequest(f"the body has {len(data)} bytes; it may have {max_bytes}")
    try:
        value = from_json(data or b"{}", allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    _refuse_booleans(value, kind.DESCRIPTOR, "")
    try:
        return json_format.ParseDict(value, kind())
    except json_format.ParseError as error:
        raise _refusal(str(error)) from error


def _refuse_booleans(value: dict[str, object], descriptor: Any, place: str) -> None:
    """Why: `json_format` takes true for the number 1."""
    names = {**descriptor.fields_by_camelcase_name, **descriptor.fields_by_name}
    for name, entry in value.items():
        field = names.get(name)
        if field is None:
            continue
        entries = entry if isinstance(entry, list) else [entry]
        for one in entries:
            if isinstance(one, bool) and field.type != FieldDescriptor.TYPE_BOOL:
                raise InvalidRequest(f"{place}{name} is true or false", field=f"{place}{name}")
            if isinstance(one, dict) and field.message_type is not None:
                _refuse_booleans(one, field.message_type, f"{place}{name}.")


def _refusal(message: str) -> InvalidRequest:
    unknown = _UNKNOWN.search(message)
    if unknown:
        name, place = unknown.group(1)[:_LONGEST_NAME], unknown.group(2)
        return InvalidRequest(f"unknown field {name!a}", field=f"{place}.{name}" if place else name)
    place = _PLACE.search(message)
    steps = _STEP.findall(message)
    fact = _STEP.sub("", message.splitlines()[0])[:200].rstrip(".")
    field = place.group(1) if place else ".".join(steps)
    return InvalidRequest(f"{field}: {fact}", field=field or None)

"""Strict proto3 JSON: what `json_format` lets pass or loses is refused, with the field's path."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from headrace.errors import InvalidRequest
from headrace_gateway.api.bodies.json_objects import MAX_ENTRIES, are_token_ids, read_object

AnyMessage = TypeVar("AnyMessage", bound=Message)

_UNKNOWN = re.compile(r'has no field named "([^"]*)" at "\w+\.?([^"]*)"')
_STEP = re.compile(r"Failed to parse (\w+) field: ")
_PLACE = re.compile(r" at \w+\.([\w.\[\]]+?)\.*$")
_LONGEST_NAME = 64
_TOKEN_IDS = "prompt_token_ids"
_INPUTS = "inputs"


def parse(kind: type[AnyMessage], data: bytes, *, max_bytes: int) -> AnyMessage:
    """Read a body. Names may be snake_case or camelCase; null is the same as absent.

    Raises:
        InvalidRequest: it is too long, no JSON, or a field is unknown or of a wrong type.
    """
    value = read_object(data or b"{}", max_bytes=max_bytes)
    token_ids = _take_token_ids(value, (_TOKEN_IDS, "promptTokenIds"))
    inputs = value.get(_INPUTS)
    of_inputs = [
        _take_token_ids(each, ("token_ids", "tokenIds"), f"{_INPUTS}[{i}].")
        for i, each in enumerate(inputs if isinstance(inputs, list) else ())
    ]
    _check(value, kind.DESCRIPTOR, "")
    try:
        message = json_format.ParseDict(value, kind())
        if token_ids:
            message.MergeFrom(kind(**{_TOKEN_IDS: token_ids}))
        for place, ids in enumerate(of_inputs):
            getattr(message, _INPUTS)[place].token_ids.extend(ids)
    except json_format.ParseError as error:
        raise _refusal(str(error)) from error
    except ValueError as error:
        raise InvalidRequest(f"unknown field '{_TOKEN_IDS}'", field=_TOKEN_IDS) from error
    return message


def _take_token_ids(value: object, names: tuple[str, str], place: str = "") -> list[int]:
    """Take the token ids of one of these names out.

    Why: `json_format` needs a microsecond for each, a second for a prompt of a million.
    """
    for name in names:
        if isinstance(value, dict) and isinstance(value.get(name), list):
            token_ids: list[int] = value.pop(name)
            if not are_token_ids(token_ids):
                field = place + name
                raise InvalidRequest(f"{field}: should be a list of token ids", field=field)
            return token_ids
    return []


def _check(value: dict[str, Any], descriptor: Any, place: str) -> None:
    """Refuse what is too long, and booleans, which `json_format` takes for the number 1."""
    _check_length(value, place.rstrip("."))
    names = {**descriptor.fields_by_camelcase_name, **descriptor.fields_by_name}
    for name, entry in value.items():
        field = names.get(name)
        if field is None:
            continue
        if isinstance(entry, list | dict):
            _check_length(entry, place + name)
        for one in entry if isinstance(entry, list) else [entry]:
            if isinstance(one, bool) and field.type != FieldDescriptor.TYPE_BOOL:
                raise InvalidRequest(f"{place}{name} is true or false", field=f"{place}{name}")
            if isinstance(one, dict) and field.message_type is not None:
                _check(one, field.message_type, f"{place}{name}.")


def _check_length(entries: list[Any] | dict[str, Any], place: str) -> None:
    if len(entries) > MAX_ENTRIES:
        raise InvalidRequest(
            f"{place or 'the body'} has {len(entries)} entries; it may have {MAX_ENTRIES}",
            field=place or None,
        )


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

"""What a REST call may name: fields of the body, and parameters of the query. Pure.

Envoy makes the message of a REST call, and passes over what its type does not have. A misspelt
`network` would then make a key without networks, so every name is checked again here:

    check_body(CREATE_KEY, b'{"network": ["10.0.0.0/8"]}')
    InvalidRequest: unknown field key.network; did you mean key.networks?
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from headrace.errors import InvalidRequest

_WHOLE = "*"
_LONGEST_NAME, _LONGEST_FACT = 64, 200
_STEP = re.compile(r"Failed to parse (\w+) field: ")
_PLACE = re.compile(r" at \w+\.[\w.\[\]]+$")


def check_body(method: MethodDescriptor, body: bytes) -> None:
    """Check the body of a REST call of this method.

    Raises:
        InvalidRequest: it is no JSON object, or has a field twice, of a wrong type, or unknown.
    """
    value, rule = _object(body), _rule_body(method)
    if not rule:
        if value:
            raise InvalidRequest(f"{method.name} takes no body; give its fields in the query")
        return
    place = "" if rule == _WHOLE else rule
    kind = method.input_type.fields_by_name[rule].message_type if place else method.input_type
    assert kind is not None
    _check_names(value, kind, place)
    try:
        json_format.ParseDict(value, GetMessageClass(kind)())
    except json_format.ParseError as error:
        raise _unreadable(str(error), place) from None


def check_query(method: MethodDescriptor, target: str) -> None:
    """Check the query of a REST call of this method; `target` is its path and query.

    Raises:
        InvalidRequest: a parameter is no field of the method's request.
    """
    for name, _ in parse_qsl(target.partition("?")[2], keep_blank_values=True):
        kind: Descriptor | None = method.input_type
        place: list[str] = []
        for step in name.split("."):
            known = {} if kind is None else _fields(kind)
            if step not in known:
                _refuse("parameter", step, ".".join(place), known)
            place.append(step)
            kind = known[step].message_type


def _rule_body(method: MethodDescriptor) -> str:
    return str(method.GetOptions().Extensions[annotations_pb2.http].body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {str(error)[:_LONGEST_FACT]}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"the body has {_shown(name)} twice in one object", field=name)
        found[name] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise InvalidRequest(f"the body is no JSON: {name} is no number of it")


def _check_names(value: object, kind: Descriptor, place: str) -> None:
    """Refuse unknown names. What types of Google mean by theirs, `json_format` checks."""
    if kind.file.package == "google.protobuf":
        return
    if not isinstance(value, dict):
        raise InvalidRequest(f"{place} must be a JSON object", field=place)
    known, given = _fields(kind), set[int]()
    for name, entry in value.items():
        field = known.get(name)
        if field is None:
            _refuse("field", name, place, known)
        if field.number in given:
            raise InvalidRequest(f"{place or 'the body'} has {field.name} twice", field=field.name)
        given.add(field.number)
        if entry is None or field.message_type is None or _is_map(field.message_type):
            continue
        path = f"{place}.{name}" if place else name
        if not field.is_repeated:
            _check_names(entry, field.message_type, path)
        elif isinstance(entry, list):
            for i, one in enumerate(entry):
                _check_names(one, field.message_type, f"{path}[{i}]")


@cache
def _fields(kind: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Return fields by both of their names, as `page_size` and `pageSize`."""
    return {n: field for field in kind.fields for n in (field.name, field.json_name)}


def _is_map(kind: Descriptor) -> bool:
    return bool(kind.GetOptions().map_entry)


def _refuse(what: str, name: str, place: str, known: Mapping[str, FieldDescriptor]) -> NoReturn:
    before = f"{place}." if place else ""
    near = get_close_matches(name[:_LONGEST_NAME], list(known), n=1)
    if near:
        advice = f"did you mean {before}{near[0]}?"
    else:
        advice = f"{place or 'the call'} has {_listed(known.values())}"
    raise InvalidRequest(
        f"unknown {what} {before}{_shown(name)}; {advice}", field=before + name[:_LONGEST_NAME]
    )


def _listed(fields: Iterable[FieldDescriptor]) -> str:
    return ", ".join(dict.fromkeys(field.name for field in fields)) or "none"


def _shown(name: str) -> str:
    """Return a name as an error may repeat it: errors are sent in headers, which are bounded."""
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    return shown if re.fullmatch(r"[\w.…-]+", shown, re.ASCII) else ascii(shown)


def _unreadable(message: str, place: str) -> InvalidRequest:
    steps = [place] if place else []
    path = ".".join((*steps, *_STEP.findall(message)))
    fact = _PLACE.sub("", _STEP.sub("", message.splitlines()[0]))[:_LONGEST_FACT].rstrip(".")
    return InvalidRequest(f"{path or 'the body'} cannot be read: {fact}", field=path or None)

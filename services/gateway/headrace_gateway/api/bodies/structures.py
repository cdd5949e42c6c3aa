"""Converts the fields of OpenAI and vLLM that request structured output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from headrace.errors import InvalidRequest, Unsupported
from headrace.v1.common_pb2 import JsonObject, Structure
from headrace_gateway.api.bodies.generation import Body
from headrace_gateway.api.bodies.json_objects import MAX_ENTRIES
from headrace_gateway.base.quoting import quoted


def requested_structure(body: Body) -> tuple[Structure, str] | None:
    """Return the structure and the field that requests it; None for free text.

    Raises:
        InvalidRequest: it is malformed, or two fields request one.
        Unsupported: it is of an unknown kind.
    """
    found = [
        (structure, name)
        for name, read in _READERS.items()
        if (value := getattr(body, name)) is not None
        and (structure := read(value, name)) is not None
    ]
    if len(found) > 1:
        names = " and ".join(name for _, name in found)
        raise InvalidRequest(f"{names} are both set; one may be", field=found[1][1])
    return found[0] if found else None


def response_format(given: dict[str, Any], field: str) -> Structure | None:
    """Return what a response_format requests; None for free text.

    Raises:
        InvalidRequest: it is malformed.
        Unsupported: it is of an unknown kind.
    """
    value = {name: each for name, each in given.items() if each is not None}
    kind = value.get("type")
    match kind:
        case None:
            raise InvalidRequest(f"{field}.type is missing", field=f"{field}.type")
        case "text":
            _require_only(value, ("type",), field)
            return None
        case "json_object" | "json_schema" | "json" if (name := _name_beside(value)) is not None:
            _require_only(value, ("type", name), field)
            return _schema(value[name], f"{field}.{name}")
        case "json_object":
            _require_only(value, ("type",), field)
            return Structure(json_object=JsonObject())
        case "json_schema":
            _require_only(value, ("type", "json_schema"), field)
            return _named_schema(value.get("json_schema"), f"{field}.json_schema")
        case "structural_tag":
            return Structure(structural_tag=json.dumps(_structural_tag(value, field)))
    raise Unsupported(f"{field}.type {quoted(str(kind))} is not served", field=f"{field}.type")


def _name_beside(value: dict[str, Any]) -> str | None:
    """Return which field beside the type has a schema.

    It is `schema` for llama.cpp, Fireworks and Together, and `value` for TGI, and so for Hugging
    Face's InferenceClient, which sends that whatever shape it is given.
    """
    return next((name for name in ("schema", "value") if name in value), None)


def _named_schema(value: object, field: str) -> Structure:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} should be an object", field=field)
    # strict is not read: a schema that is served is always enforced.
    _require_only(value, ("name", "description", "schema", "strict"), field)
    return _schema(value.get("schema"), f"{field}.schema")


def _structural_tag(value: dict[str, Any], field: str) -> dict[str, Any]:
    """Return the current shape, also of the older one."""
    if "format" in value:
        _require_only(value, ("type", "format"), field)
        return value
    _require_only(value, ("type", "structures", "triggers"), field)
    structures, triggers = value.get("structures"), value.get("triggers")
    if not isinstance(structures, list) or not isinstance(triggers, list):
        raise InvalidRequest(f"{field} needs a format, or structures and triggers", field=field)
    tags = []
    for i, one in enumerate(structures):
        if not isinstance(one, dict) or not isinstance(one.get("schema"), dict):
            raise InvalidRequest(f"{field}.structures[{i}] has no schema", field=field)
        content = {"type": "json_schema", "json_schema": one["schema"]}
        begin, end = one.get("begin", ""), one.get("end", "")
        tags.append({"type": "tag", "begin": begin, "content": content, "end": end})
    shape = {"type": "triggered_tags", "triggers": triggers, "tags": tags}
    return {"type": "structural_tag", "format": shape}


def _structured_outputs(value: dict[str, Any], field: str) -> Structure:
    given = {
        name: each
        for name, each in value.items()
        if each is not None and not any(each is unused for unused in _OPTIONS.get(name, ()))
    }
    for name in given.keys() - _OUTPUTS.keys():
        raise Unsupported(f"{field}.{name[:64]} is not served", field=f"{field}.{name[:64]}")
    if len(given) != 1:
        raise InvalidRequest(
            f"{field} should have exactly one of {', '.join(_OUTPUTS)}; it has {len(given)}",
            field=field,
        )
    ((name, each),) = given.items()
    return _OUTPUTS[name](each, f"{field}.{name}")


def _schema(value: object, field: str) -> Structure:
    if isinstance(value, dict):
        return Structure(json_schema=json.dumps(value, ensure_ascii=False))
    return Structure(json_schema=_text(value, field))


def _regex(value: object, field: str) -> Structure:
    return Structure(regex=_text(value, field))


def _grammar(value: object, field: str) -> Structure:
    return Structure(ebnf=_text(value, field))


def _unless_empty(value: object, field: str) -> Structure | None:
    """llama.cpp's clients send an empty grammar for none."""
    return _grammar(value, field) if value else None


def _tag(value: object, field: str) -> Structure:
    return Structure(structural_tag=_text(value, field))


def _choice(value: object, field: str) -> Structure:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_ENTRIES:
        raise InvalidRequest(f"{field} should be a list of 1 to {MAX_ENTRIES} texts", field=field)
    texts = [json.dumps(_text(each, field), ensure_ascii=False) for each in value]
    return Structure(ebnf=f"root ::= {' | '.join(texts)}")


def _json_object(value: object, field: str) -> Structure:
    if value is not True:
        raise InvalidRequest(f"{field} should be true", field=field)
    return Structure(json_object=JsonObject())


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{field} is missing or of a wrong type", field=field)
    return value


def _require_only(value: dict[str, Any], names: tuple[str, ...], field: str) -> None:
    for name in value.keys() - set(names):
        raise InvalidRequest(
            f"unknown field {quoted(str(name))}", field=f"{field}.{str(name)[:64]}"
        )


_OPTIONS: dict[str, tuple[bool, ...]] = {
    "json_object": (False,),
    # Between tokens of JSON there is one space or none anyway.
    "disable_any_whitespace": (False, True),
    "disable_additional_properties": (False,),
    # There is no fallback: a structure that cannot be enforced is refused.
    "disable_fallback": (False, True),
}
"""Values in vLLM's `structured_outputs` that change nothing."""

_OUTPUTS: dict[str, Callable[[object, str], Structure]] = {
    "json": _schema,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "json_object": _json_object,
    "structural_tag": _tag,
}
_READERS: dict[str, Callable[[Any, str], Structure | None]] = {
    "response_format": response_format,
    "structured_outputs": _structured_outputs,
    "guided_json": _schema,
    "guided_regex": _regex,
    "guided_choice": _choice,
    "guided_grammar": _grammar,
    "grammar": _unless_empty,
    "json_schema": _schema,
}

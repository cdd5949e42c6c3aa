"""Pure room: lists within bodies, entry by entry: parts of a text, tools, calls of earlier turns.

Unknown fields of an entry are treated as those of the body are; what an entry must have is checked
where it is used.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from headrace_gateway.api.bodies.strict_body import UNSUPPORTED, unknown_fields
from headrace_gateway.api.bodies.unknown_fields import UnknownFields, split_known
from headrace_gateway.api.bodies.unsupported_fields import (
    CALL_NO_EFFECT,
    CALLED_NO_EFFECT,
    PART_NO_EFFECT,
)
from headrace_gateway.base.quoting import quoted

TEXT = frozenset({"type", "text", *PART_NO_EFFECT})
_KINDS = ("text", "input_text", "output_text", "refusal")
"""The second and third are those of OpenAI's Responses, which clients send here as well."""
_REFUSAL = frozenset({"type", "refusal"})
_DOCUMENT = frozenset({"text"})
TOOL = frozenset({"type", "function"})
FUNCTION = frozenset({"name", "description", "parameters", "strict"})
CALL = frozenset({"id", "type", "function", *CALL_NO_EFFECT})
CALLED = frozenset({"name", "arguments", *CALLED_NO_EFFECT})


def text_or_parts(content: object, info: ValidationInfo) -> object:
    """Return a text as it is, and of parts their texts; a refusal of OpenAI's models is text."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise PydanticCustomError("content", "should be a text or a list of parts")
    return [_part(part, i, unknown_fields(info)) for i, part in enumerate(content)]


def _part(part: object, i: int, unknown: UnknownFields) -> dict[str, str]:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise PydanticCustomError("part", "part {i} has no type", {"i": i})
    kind = part["type"]
    if kind not in _KINDS:
        raise PydanticCustomError(
            UNSUPPORTED,
            "part {i} is of type {type}; only text is served",
            {"i": i, "type": quoted(kind)},
        )
    known, member = (TEXT, "text") if kind != "refusal" else (_REFUSAL, "refusal")
    _kept(part, known, ("messages[].content[].", f"[{i}]"), unknown)
    unknown.ignored |= part.keys() & PART_NO_EFFECT.keys()
    if not isinstance(part.get(member), str):
        raise PydanticCustomError("part", "part {i} has no {member}", {"i": i, "member": member})
    return {"type": "text", "text": part[member]}


def documents_of(value: object, info: ValidationInfo) -> list[str]:
    """Return texts; of objects their `text`, by which alone documents are ranked."""
    if not isinstance(value, list):
        raise PydanticCustomError("documents", "should be a list of texts")
    return [_document(each, i, unknown_fields(info)) for i, each in enumerate(value)]


def _document(document: object, i: int, unknown: UnknownFields) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise PydanticCustomError(
            "documents", "document {i} is neither a text nor an object with a text", {"i": i}
        )
    if isinstance(document, dict):
        _kept(document, _DOCUMENT, ("documents[].", f"[{i}]"), unknown)
    return text


def tool_entries(entries: object, info: ValidationInfo) -> object:
    """Return tools as they were sent, without unknown fields."""
    return _functions(entries, ("function",), (TOOL, FUNCTION), "tools[].", info)


def call_entries(entries: object, info: ValidationInfo) -> object:
    """Return the tool calls of an earlier message, without unknown fields."""
    path = "messages[].tool_calls[]."
    return _functions(entries, ("function", None), (CALL, CALLED), path, info)


def _functions(
    entries: object,
    types: tuple[str | None, ...],
    known: tuple[frozenset[str], frozenset[str]],
    path: str,
    info: ValidationInfo,
) -> object:
    """Return entries of these types without unknown fields; `known`: theirs and their function's.

    An entry of another type is left as it is: it is refused later, for its type.
    """
    if not isinstance(entries, list):
        return entries
    unknown, found = unknown_fields(info), []
    for i, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("type") in types:
            entry = _kept(entry, known[0], (path, f"[{i}]"), unknown)
            if isinstance(function := entry.get("function"), dict):
                place = (f"{path}function.", f"[{i}].function")
                entry["function"] = _kept(function, known[1], place, unknown)
        found.append(entry)
    return found


def _kept(
    entry: dict[str, Any], known: frozenset[str], place: tuple[str, str], unknown: UnknownFields
) -> dict[str, Any]:
    """Return an entry without its unknown fields.

    `place`: the path of any such entry, for notes; and of this one in its list, for errors.
    """
    kept, refused = split_known(entry, known, place[0], unknown)
    if refused is not None:
        raise PydanticCustomError("unknown_field", "{name}", {"name": refused, "within": place[1]})
    return kept

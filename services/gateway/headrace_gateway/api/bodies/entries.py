"""Pure room: lists within bodies, entry by entry: parts of a text, tools, calls of earlier turns.

Unknown fields of an entry are treated as those of the body are; what an entry must have is looked
at where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """A text as it stands; of parts, the text of each. What OpenAI's models declined is text."""
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
    text = document
    if isinstance(document, dict):
        text = document.get("text")
    if not isinstance(text, str):
        raise PydanticCustomError(
            "documents", "document {i} is neither a text nor an object with a text", {"i": i}
        )
    if isinstance(document, dict):
        _kept(document, _DOCUMENT, ("documents[].", f"[{i}]"), unknown)
    return text


def tool_entries(entries: object, info: ValidationInfo) -> object:
    """Tools as they were sent, without what is passed over."""

    def sift(entry: dict[str, Any], i: int) -> dict[str, Any]:
        # Why: another type has other fields, and is refused for its type.
        if entry.get("type") != "function":
            return entry
        return _with_function(entry, (TOOL, FUNCTION), ("tools[].", f"[{i}]"), unknown_fields(info))

    return _each(entries, sift)


def call_entries(entries: object, info: ValidationInfo) -> object:
    """The same of calls in earlier turns."""

    def sift(entry: dict[str, Any], i: int) -> dict[str, Any]:
        if entry.get("type") not in ("function", None):
            return entry
        place = ("messages[].tool_calls[].", f"[{i}]")
        return _with_function(entry, (CALL, CALLED), place, unknown_fields(info))

    return _each(entries, sift)


def _each(entries: object, sift: Callable[[dict[str, Any], int], dict[str, Any]]) -> object:
    if not isinstance(entries, list):
        return entries
    return [sift(e, i) if isinstance(e, dict) else e for i, e in enumerate(entries)]


def _with_function(
    entry: dict[str, Any],
    known: tuple[frozenset[str], frozenset[str]],
    place: tuple[str, str],
    unknown: UnknownFields,
) -> dict[str, Any]:
    kept = _kept(entry, known[0], place, unknown)
    if isinstance(function := kept.get("function"), dict):
        inner = (f"{place[0]}function.", f"{place[1]}.function")
        kept["function"] = _kept(function, known[1], inner, unknown)
    return kept


def _kept(
    entry: dict[str, Any], known: frozenset[str], place: tuple[str, str], unknown: UnknownFields
) -> dict[str, Any]:
    """`place`: of any such entry, for notes; and of this one in its list, for refusals."""
    kept, refused = split_known(entry, known, place[0], unknown)
    if refused is not None:
        raise PydanticCustomError("unknown_field", "{name}", {"name": refused, "within": place[1]})
    return kept

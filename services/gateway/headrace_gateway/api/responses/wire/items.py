"""Pure: the items of a response's input, as they are sent, as they are stored, and as messages.

What one turn of the model made is one message of the chat template, whatever the items:

    reasoning "It is 9."              assistant, reasoning_content "It is 9.", content "Let me see",
    message   "Let me see"            tool_calls [f(1), f(2)]
    function_call f(1), f(2)
    function_call_output of f(1)      tool, of f(1)
    function_call_output of f(2)      tool, of f(2)
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from headrace.errors import InvalidRequest, Unsupported
from headrace_gateway.api.bodies.json_objects import MAX_ENTRIES
from headrace_gateway.api.bodies.strict_body import is_neutral
from headrace_gateway.api.bodies.unknown_fields import UnknownFields, split_known
from headrace_gateway.api.bodies.unsupported_fields import PART_NO_EFFECT
from headrace_gateway.api.responses.wire.fields import ITEMS, ITEMS_NO_EFFECT, ITEMS_NOT_SERVED
from headrace_gateway.base.quoting import quoted

Json = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Types of parts, and the member that has the text."""
_PART = frozenset({"type", "text", "refusal", "annotations", "logprobs", *PART_NO_EFFECT})
_PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "reasoning": "rs_",
}
_SEALED = "hr1."
"""Before what `encrypted_content` holds of a reasoning text."""


def read_items(value: object, field: str, unknown: UnknownFields) -> list[Json]:
    """Return the items of an input, each with an id; a text is a user's message.

    Raises:
        InvalidRequest: an item is malformed; the error names its place.
        Unsupported: it is of a type that is not served.
    """
    if isinstance(value, str):
        return [_with_id({"type": "message", "role": "user", "content": _text_parts(value)})]
    if not isinstance(value, list):
        raise InvalidRequest(f"{field} should be a text or a list of items", field=field)
    if len(value) > MAX_ENTRIES:
        raise InvalidRequest(
            f"{field} has {len(value)} items; it may have {MAX_ENTRIES}", field=field
        )
    return [_item(each, f"{field}[{i}]", field, unknown) for i, each in enumerate(value)]


def _item(value: object, field: str, path: str, unknown: UnknownFields) -> Json:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} should be an object", field=field)
    kind = value.get("type")
    if kind is None:
        kind = "message" if "role" in value else "item_reference"
    if not isinstance(kind, str) or kind not in ITEMS:
        served = ", ".join(ITEMS)
        raise Unsupported(
            f"{field} is of type {quoted(str(kind))}, which is not served; {served} are",
            field=f"{field}.type",
        )
    ignored, not_served = ITEMS_NO_EFFECT[kind], ITEMS_NOT_SERVED[kind]
    known = ITEMS[kind] | ignored.keys() | not_served.keys()
    item, refused = split_known(value, known, f"{path}[].", unknown)
    if refused is not None:
        name = f"{field}.{refused[:64]}"
        raise InvalidRequest(f"unknown field {quoted(refused)}", field=name)
    for name in item.keys() & not_served.keys():
        if item[name] is not None and not is_neutral(item[name], not_served[name].neutral):
            why = not_served[name].why
            raise Unsupported(f"{field}.{name} is not served: {why}", field=f"{field}.{name}")
    unknown.ignored |= {name for name in item.keys() & ignored if item[name] is not None}
    read = {
        "message": _message,
        "function_call": _call,
        "function_call_output": _call_output,
        "reasoning": _reasoning,
        "item_reference": _reference,
    }[kind]
    return _with_id(read(item, field) | {"type": kind}, item.get("id"), field)


def _message(item: Json, field: str) -> Json:
    role = item.get("role")
    if role not in _ROLES:
        allowed = ", ".join(_ROLES)
        raise InvalidRequest(
            f"{field}.role {quoted(str(role))} is none of {allowed}", field=f"{field}.role"
        )
    is_answer = role == "assistant"
    parts = _parts(item.get("content"), f"{field}.content", answer=is_answer)
    return {"role": role, "content": parts}


def _parts(content: object, field: str, *, answer: bool) -> list[Json]:
    """Return the texts of a content, as parts of an answer or of an input."""
    if isinstance(content, str):
        return _text_parts(content, answer=answer)
    if not isinstance(content, list):
        raise InvalidRequest(f"{field} should be a text or a list of parts", field=field)
    found: list[Json] = []
    for i, part in enumerate(content):
        place = f"{field}[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(kind, str):
            raise InvalidRequest(f"{place} has no type", field=place)
        if kind not in _TEXTS:
            raise Unsupported(
                f"{place} is of type {quoted(kind)}; only text is served", field=f"{place}.type"
            )
        text = part.get(_TEXTS[kind])
        if not isinstance(text, str):
            raise InvalidRequest(f"{place} has no {_TEXTS[kind]}", field=place)
        found += _text_parts(text, answer=answer)
    return found


def _text_parts(text: str, *, answer: bool = False) -> list[Json]:
    if answer:
        return [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": text}]


def _call(item: Json, field: str) -> Json:
    texts = {name: _text(item, name, field) for name in ("name", "arguments")}
    return {"call_id": _call_id(item, field), **texts, "status": "completed"}


def _call_output(item: Json, field: str) -> Json:
    output = item.get("output")
    if not isinstance(output, str):
        output = _parts(output, f"{field}.output", answer=False)
    return {"call_id": _call_id(item, field), "output": output, "status": "completed"}


def _call_id(item: Json, field: str) -> str:
    if not (call_id := _text(item, "call_id", field)):
        raise InvalidRequest(
            f"{field}.call_id is empty; a call and its output have the same id, of 1 character or"
            " more",
            field=f"{field}.call_id",
        )
    return call_id


def _reasoning(item: Json, field: str) -> Json:
    summary = _reasoning_texts(item.get("summary") or [], f"{field}.summary")
    content = _reasoning_texts(item.get("content") or [], f"{field}.content")
    read: Json = {"summary": [{"type": "summary_text", "text": text} for text in summary]}
    if content:
        read["content"] = [{"type": "reasoning_text", "text": text} for text in content]
    if (sealed := item.get("encrypted_content")) is not None:
        read["encrypted_content"] = sealed
        unsealed(sealed, f"{field}.encrypted_content")
    return read


def _reasoning_texts(parts: object, field: str) -> list[str]:
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
    ):
        raise InvalidRequest(f"{field} should be a list of parts with a text", field=field)
    return [part["text"] for part in parts]


def _reference(item: Json, field: str) -> Json:
    return {"id": _text(item, "id", field)}


def _text(item: Json, name: str, field: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{field}.{name} is missing or no text", field=f"{field}.{name}")
    return value


def _with_id(item: Json, item_id: object = None, field: str = "") -> Json:
    if item_id is not None and not (isinstance(item_id, str) and 0 < len(item_id) <= 128):
        raise InvalidRequest(
            f"{field}.id should be a text of 1 to 128 characters", field=f"{field}.id"
        )
    status = {"status": "completed"} if item["type"] == "message" else {}
    return {"id": item_id or _drawn_id(item), **status, **item}


def _drawn_id(item: Json) -> str:
    return f"{_PREFIXES.get(item['type'], '')}{secrets.token_hex(16)}"


def with_fresh_ids(items: list[Json]) -> list[Json]:
    """Return the items; the second one of an id has an id of its own, so that pages have ends."""
    seen, fresh = set[str](), list[Json]()
    for item in items:
        if item["id"] in seen:
            item = item | {"id": _drawn_id(item)}
        seen.add(item["id"])
        fresh.append(item)
    return fresh


def as_past(output: list[Json]) -> list[Json]:
    """Return the items of a response's output as what follows has them: without logprobs."""
    return [
        item | {"content": [part | {"logprobs": []} for part in item["content"]]}
        if item["type"] == "message"
        else item
        for item in output
    ]


def sealed(text: str) -> str:
    """Return a reasoning text as `encrypted_content`: only its form is hidden, not its meaning."""
    return _SEALED + urlsafe_b64encode(text.encode()).decode()


def unsealed(content: object, field: str) -> str:
    """Return the text of `sealed`.

    Raises:
        InvalidRequest: it was not made here.
    """
    try:
        if isinstance(content, str) and content.startswith(_SEALED):
            return urlsafe_b64decode(content.removeprefix(_SEALED).encode()).decode()
    except ValueError:
        pass
    raise InvalidRequest(f"{field} was not made by this server", field=field)


def as_messages(items: list[Json]) -> list[Json]:
    """Return the messages of a chat that these items are; there are no references among them."""
    messages: list[Json] = []
    turn: Json | None = None
    """The last message, if it is an answer of the model's that is not over."""
    for item in items:
        kind = item["type"]
        if kind == "function_call_output":
            turn = None
            output = item["output"]
            content = output if isinstance(output, str) else _content(output)
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        elif kind == "message" and item["role"] != "assistant":
            turn = None
            messages.append({"role": item["role"], "content": _content(item["content"])})
        else:
            if turn is None or (kind == "reasoning" and len(turn) > 1) or _has_text(turn, item):
                turn = {"role": "assistant"}
                messages.append(turn)
            _add_to_turn(turn, item)
    for message in messages:
        message.setdefault("content", "" if len(message) == 1 else None)
    return messages


def _has_text(turn: Json, item: Json) -> bool:
    return item["type"] == "message" and ("content" in turn or "tool_calls" in turn)


def _add_to_turn(turn: Json, item: Json) -> None:
    if item["type"] == "message":
        turn["content"] = _content(item["content"])
    elif item["type"] == "reasoning":
        turn["reasoning_content"] = _reasoning_text(item)
    else:
        function = {"name": item["name"], "arguments": item["arguments"]}
        calls = turn.setdefault("tool_calls", [])
        calls.append({"id": item["call_id"], "type": "function", "function": function})


def _reasoning_text(item: Json) -> str:
    parts = item.get("content") or item["summary"]
    if not parts and "encrypted_content" in item:
        return unsealed(item["encrypted_content"], "encrypted_content")
    return "\n".join(part["text"] for part in parts)


def _content(parts: list[Json]) -> str | list[Json]:
    texts = [{"type": "text", "text": part["text"]} for part in parts]
    return texts[0]["text"] if len(texts) == 1 else texts

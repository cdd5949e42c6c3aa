"""Holds answers to the OpenAPI document: every member must be described."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from headrace_gateway.api.probes.open_api import open_api

OPEN = ("ResponseObject",)
"""Schemas of answers that repeat fields of their request, which are described there."""


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(open_api())
    return found


def faults(path: str, method: str, status: int, content_type: str, body: bytes) -> list[str]:
    """Return where an answer is not as the document says; `path` is the document's."""
    answers = document()["paths"][path][method]["responses"]
    content = answers.get(str(status), answers["default"])["content"]
    kind = content_type.partition(";")[0]
    if kind not in content:
        return [f"{kind} is none of {list(content)}"]
    if (schema := content[kind].get("schema")) is None:
        return []
    return [fault for value in _values(kind, body) for fault in _faults(schema, value)]


def _values(kind: str, body: bytes) -> list[Any]:
    if kind != "text/event-stream":
        return [json.loads(body)]
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n")]
    return [json.loads(line) for line in lines if line.startswith("{")]


def _faults(schema: dict[str, Any], value: Any) -> list[str]:
    validator = Draft202012Validator({**schema, "components": {"schemas": _closed_schemas()}})
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]


@cache
def _closed_schemas() -> dict[str, Any]:
    """Return the schemas, which leave out nothing that an answer may have."""
    found: dict[str, Any] = json.loads(json.dumps(document()["components"]["schemas"]))
    for name, schema in found.items():
        if name not in OPEN and "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return found

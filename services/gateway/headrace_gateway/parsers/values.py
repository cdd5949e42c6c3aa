"""Pure: arguments that are not written as JSON, as the schemas of their tools have them."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Mapping
from typing import Any

from headrace_gateway.parsers.scanning import dumped, loaded, well_formed

_NAMES = {"true": True, "false": False, "null": None, "none": None}
LONGEST_PYTHON = 65_536
"""Characters of Python that are parsed: its parser takes a hundred times their memory."""


def typed(text: str, schema: Mapping[str, Any] | None) -> Any:
    """Return the value of a text by its schema; without one, of JSON where it is JSON.

    A text that is no value of the type is that text: a client can tell more of it than an error.
    """
    kinds = kinds_of(schema or {})
    if kinds and kinds <= {"string"}:
        return text
    plain = text.strip()
    if plain.lower() in _NAMES and (kinds & {"boolean", "null"} or "string" not in kinds):
        return _NAMES[plain.lower()]
    value = loaded(plain)
    if value is None:
        value = _literal(plain)
    if value is None or isinstance(value, str):
        # Quotes may be the text's own.
        return text if "string" in kinds or value is None else value
    if ("string" in kinds and _kind(value) not in kinds) or not _is_json(value):
        return text
    if isinstance(value, float) and value.is_integer() and kinds <= {"integer"} and kinds:
        return int(value)
    return value


def _is_json(value: object) -> bool:
    """Return whether JSON can have the value: no number in it is too large."""
    try:
        dumped(value)
    except ValueError:
        return False
    return True


def property_schema(schema: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """Return the schema of one argument."""
    properties = (schema or {}).get("properties")
    found = properties.get(name) if isinstance(properties, Mapping) else None
    return found if isinstance(found, Mapping) else None


def python_calls(source: str) -> list[tuple[str, dict[str, Any]]] | None:
    """Return the calls of a Python list, of one call, or of lines of calls; None if it is none.

    Only keywords and literals are read; nothing is run. `print(f())` is `f()`.
    """
    if len(source) > LONGEST_PYTHON:
        return None
    try:
        body = _parsed(source.strip()).body
        nodes: list[ast.expr] = []
        for statement in body:
            if not isinstance(statement, ast.Expr):
                return None
            value = statement.value
            nodes += value.elts if isinstance(value, ast.List) else [value]
        return [_call(node) for node in nodes] or None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        # Why: models write "\\d" in Python's texts, of which Python warns.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, ast.Call):
        raise ValueError("no call")
    name = ast.unparse(node.func)
    if name == "print" and len(node.args) == 1 and not node.keywords:
        return _call(node.args[0])
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("arguments without names")
    arguments = {str(each.arg): _value(each.value) for each in node.keywords}
    return name.removeprefix("default_api.").removeprefix("functions."), arguments


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str(text)):
            return well_formed(text)
        case ast.Constant(value=bool() | int() | float() | None as value) if value != math.inf:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name) if name.lower() in _NAMES:
            return _NAMES[name.lower()]
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(each) for each in elements]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(each) for key, each in zip(keys, values, strict=True)}
    raise ValueError("no literal")


def _key(node: ast.expr | None) -> str:
    key = _value(node) if node is not None else None
    if not isinstance(key, str):
        raise ValueError("no text")
    return key


def _literal(text: str) -> Any:
    """Return the value of a Python literal, which models write for lists and objects."""
    if text[:1] not in ("[", "{", "(") or len(text) > LONGEST_PYTHON:
        return None
    try:
        (statement,) = _parsed(text).body
        return _value(statement.value) if isinstance(statement, ast.Expr) else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def kinds_of(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema names, also in its alternatives."""
    kind = schema.get("type")
    kinds = {each for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, str)}
    for name in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(name)
        for each in parts if isinstance(parts, list) else ():
            kinds |= kinds_of(each) if isinstance(each, Mapping) else set()
    if not kinds and isinstance(schema.get("enum"), list):
        kinds = {_kind(each) for each in schema["enum"]}
    return {str(each).lower() for each in kinds}


def _kind(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case None:
            return "null"
    return "object"

"""Pure: grammars of arguments that are not one JSON object, but written one by one.

Required ones come first, in the order of the schema, and then some of the others. A text is written
as it is, and every other value as JSON, which all parsers read; so is what is within a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace_gateway.parsers.formats import Keyword
from headrace_gateway.parsers.values import kinds_of

Format = dict[str, Any]
"""A node of a structural tag, as xgrammar has it."""


def keywords(schema: Mapping[str, Any], form: Keyword) -> Format:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = [name for name in properties if name in _entries(schema, "required")]
    others = [name for name in properties if name not in required]
    definitions = {name: schema[name] for name in ("$defs", "definitions") if name in schema}

    def written(name: str, joined: str) -> Format:
        before = const(joined + form.before.replace("NAME", name))
        value = _value(properties[name], definitions, form)
        return sequence(before, value, const(form.after))

    def following(names: Sequence[str]) -> list[Format]:
        return [{"type": "optional", "content": written(name, form.joiner)} for name in names]

    if required:
        first, *rest = required
        more = [written(name, form.joiner) for name in rest]
        return sequence(written(first, ""), *more, *following(others))
    starts = [
        sequence(written(name, ""), *following(others[i + 1 :])) for i, name in enumerate(others)
    ]
    return {"type": "or", "elements": [*starts, const("")]} if starts else const("")


def _value(schema: object, definitions: Mapping[str, Any], form: Keyword) -> Format:
    schema = schema if isinstance(schema, Mapping) else {}
    if form.writes_json or "string" not in kinds_of(schema):
        return {"type": "json_schema", "json_schema": {**schema, **definitions}}
    values = _entries(schema, "enum")
    texts = [each for each in values if isinstance(each, str)]
    if isinstance(schema.get("const"), str):
        texts = [schema["const"]]
    if texts:
        either = [const(each) for each in values or texts if isinstance(each, str)]
        either += [const(json.dumps(each)) for each in values if each not in texts]
        return sequence(const(form.quote), {"type": "or", "elements": either}, const(form.quote))
    return sequence(const(form.quote), _text(schema), const(form.quote))


def _entries(schema: Mapping[str, Any], name: str) -> list[Any]:
    found = schema.get(name)
    return found if isinstance(found, list) else []


def _text(schema: Mapping[str, Any]) -> Format:
    """Return a text without what might end it: marks begin with a less-than sign."""
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and pattern.startswith("^") and pattern.endswith("$"):
        return {"type": "regex", "pattern": pattern[1:-1]}
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    repeated = f"{{{least},{'' if most is None else most}}}"
    return {"type": "regex", "pattern": f"[^<\\n]{repeated}" if most else f"[^<]{repeated}"}


def sequence(*elements: Format) -> Format:
    return {"type": "sequence", "elements": list(elements)}


def const(text: str) -> Format:
    return {"type": "const_string", "value": text}

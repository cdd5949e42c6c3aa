"""Structural tags, which tool calls are made of, in llguidance's Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from headrace_worker.engine.grammar.schema_translation import (
    schema_to_llguidance,
    translate_tag_schema,
)


def structural_tag_in_lark(
    structural_tag: Mapping[str, Any], marks: frozenset[str], options: object
) -> str:
    """Translate tags in a row, or in free text where a trigger opens one.

    `marks` are texts that are single tokens: Lark names such a token instead of spelling it.
    `options` are llguidance's own, for the schemas in the tags.

    Raises:
        ValueError: a structural tag that only xgrammar takes.
    """
    shape = structural_tag.get("format", {})
    kind = shape.get("type")
    tags = shape.get("tags", [])
    begins = [tag["begin"] for tag in tags]
    names = " | ".join(f"tag_{i}" for i in range(len(tags)))
    rules = ["%llguidance {}"]
    if kind == "tags_with_separator":
        rules.append(f"start: ({names}){'' if shape.get('stop_after_first') else '+'}")
        openings = [_spelled(begin, marks) for begin in begins]
    elif kind == "triggered_tags":
        trigger = shape["triggers"][0]
        rules += [f"start: ({names})* rest", "rest: TEXT", r"TEXT: /(.|\n)*/"]
        opened = f"TEXT {trigger}"
        if trigger not in marks:
            rules.append(f"opened[lazy]: TEXT {json.dumps(trigger)}")
            opened = "opened"
        openings = [f"{opened} {_spelled(begin.removeprefix(trigger), marks)}" for begin in begins]
    else:
        raise ValueError(f"llguidance takes no structural tag of type {kind}; xgrammar does")
    for i, (opening, tag) in enumerate(zip(openings, tags, strict=True)):
        schema = json.dumps({**_schema_of(tag), "x-guidance": options})
        rules.append(f"tag_{i}: {opening} %json {schema} {_spelled(tag['end'], marks)}")
    return "\n".join(rules)


def _schema_of(tag: Mapping[str, Any]) -> dict[str, Any]:
    content = tag["content"]
    if content.get("type") != "json_schema":
        raise ValueError(f"llguidance takes no tag of type {content.get('type')}; xgrammar does")
    return translate_tag_schema(content, schema_to_llguidance)


def _spelled(text: str, marks: frozenset[str]) -> str:
    """Quote the text, except the marks in it."""
    if not text:
        return ""
    pattern = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True))
    parts = re.split(f"({pattern})", text) if marks else [text]
    return " ".join(part if part in marks else json.dumps(part) for part in parts if part)

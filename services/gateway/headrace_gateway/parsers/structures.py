"""Pure: the structure that holds an output to the calls that a request wants, and to its answer.

choice      without response_format              with one
auto        text, in which calls are held         calls, or an answer in the format
required    calls                                 calls
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from headrace.v1.common_pb2 import Structure
from headrace_gateway.parsers.formats import FORMATS, CallFormat
from headrace_gateway.parsers.keywords import Format, const, keywords, sequence
from headrace_gateway.request.tools import Tool, Tools

_HARMONY = "openai"
_ANY_OBJECT = {"type": "object", "additionalProperties": True}


def calls_in_text(tools: Tools, parser: str) -> Structure | None:
    """Return free text in which calls are held; None where calls look like text.

    Held are names to those that are offered, arguments of strict tools to their schemas, and calls
    to one where only one is requested.
    """
    call = FORMATS[parser]
    if not call.trigger:
        return None
    tags = [_tag(tool, call, forced=False) for tool in tools.offered]
    single = not tools.parallel
    if call.section[0]:
        tags = [_section(tags, call, single=single)]
    shape = {"type": "triggered_tags", "triggers": [call.trigger], "tags": tags}
    return _structure({**shape, "stop_after_first": single})


def calls_alone(tools: Tools, parser: str) -> Structure:
    """Return an output that is one or more calls and nothing else.

    A forced call is held to its schema, unless the tool is not strict and its schema cannot be
    enforced: then to any object.
    """
    calls = _calls(tools, parser)
    return _structure(_after_analysis(calls) if parser == _HARMONY else calls)


def calls_or_answer(tools: Tools, parser: str, answer: Structure) -> Structure:
    """Return an output that is calls and nothing else, or an answer of this structure."""
    either = [_calls(tools, parser), _answer(answer)]
    if parser == _HARMONY:
        either[1] = _in_final(either[1])
        return _structure(_after_analysis({"type": "or", "elements": either}))
    return _structure({"type": "or", "elements": either})


def harmony_answer(answer: Structure) -> Structure:
    """Return an output of gpt-oss whose final message has this structure."""
    return _structure(_after_analysis(_in_final(_answer(answer))))


def _calls(tools: Tools, parser: str) -> Format:
    call = FORMATS[parser]
    if parser == _HARMONY:
        # A call ends the turn.
        tools = replace(tools, parallel=False)
    called = [tool for tool in tools.offered if tools.only in ("", tool.name)]
    tags = [_tag(tool, call, forced=tools.choice == "required") for tool in called]
    if call.section[0]:
        return _section(tags, call, single=not tools.parallel)
    return _separated(tags, call.separator, single=not tools.parallel)


def _section(tags: Sequence[Format], call: CallFormat, *, single: bool) -> Format:
    begin, end = call.section
    content = _separated(tags, call.separator, single=single)
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def _separated(tags: Sequence[Format], separator: str, *, single: bool) -> Format:
    return {
        "type": "tags_with_separator",
        "tags": list(tags),
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": single,
    }


def _tag(tool: Tool, call: CallFormat, *, forced: bool) -> Format:
    content = _arguments(tool, call, held=forced or tool.strict)
    if forced and not tool.strict and call.keyword is None:
        # Why: OpenAI takes any schema where `strict` is not set, and clients send what they have.
        content["best_effort"] = True
    if call.middle:
        content = sequence({"type": "regex", "pattern": call.middle}, content)
    # Why in one pass: a name may have NAME in it.
    names = {"JSON_NAME": json.dumps(tool.name), "NAME": tool.name}
    begin = re.sub("JSON_NAME|NAME", lambda found: names[found[0]], call.begin)
    return {"type": "tag", "begin": begin, "content": content, "end": call.end}


def _arguments(tool: Tool, call: CallFormat, *, held: bool) -> Format:
    # Why the type: what is no object is not taken for a call.
    schema = {**tool.schema, "type": "object"} if held else _ANY_OBJECT
    if call.keyword is None:
        return {"type": "json_schema", "json_schema": schema}
    return keywords(schema, call.keyword) if held else {"type": "any_text"}


def _answer(structure: Structure) -> Format:
    """Return a structure as a part of another."""
    match form := structure.WhichOneof("form"):
        case "json_schema":
            return {"type": "json_schema", "json_schema": json.loads(structure.json_schema)}
        case "regex":
            return {"type": "regex", "pattern": structure.regex}
        case "ebnf":
            return {"type": "grammar", "grammar": structure.ebnf}
        case "structural_tag":
            found: Format = json.loads(structure.structural_tag).get("format", {})
            return found
    assert form == "json_object"
    return {"type": "json_schema", "json_schema": {"type": "object"}}


def _in_final(content: Format) -> Format:
    return {"type": "tag", "begin": "<|channel|>final<|message|>", "content": content, "end": ""}


def _after_analysis(content: Format) -> Format:
    """Return messages to the reader of the reasoning, and then this one."""
    thoughts = {
        "type": "tag",
        "begin": "<|channel|>analysis<|message|>",
        "content": {"type": "any_text"},
        "end": "<|end|>",
    }
    message = sequence(thoughts, const("<|start|>assistant"))
    return sequence({"type": "star", "content": message}, content)


def _structure(shape: Format) -> Structure:
    return Structure(structural_tag=json.dumps({"type": "structural_tag", "format": shape}))

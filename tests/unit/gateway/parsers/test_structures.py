"""What a structure holds an output to, its parser reads: calls that fit their schemas."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache

import jsonschema
import pytest
import torch
from tokenizers import AddedToken, Tokenizer

from headrace.internal.v1.request_pb2 import OfferedTool, Rendering
from headrace.output_parsers.names import TOOL_PARSERS
from headrace.v1.common_pb2 import Structure
from headrace_gateway.models.text import TextStream
from headrace_gateway.parsers.formats import FORMATS
from headrace_gateway.parsers.pieces import CallPiece, Reasoning
from headrace_gateway.parsers.registry import HARMONY_REASONING, marks_of, parser_for
from headrace_gateway.parsers.structures import (
    calls_alone,
    calls_in_text,
    calls_or_answer,
    harmony_answer,
)
from headrace_gateway.request.tools import Tool, Tools
from headrace_worker.engine.base.interface import Grammar, GrammarKind
from headrace_worker.engine.base.loaded_model import TokenizerFiles
from headrace_worker.engine.grammar.backends import compiler_for
from headrace_worker.engine.grammar.compiler import Matcher
from helpers.grammars import END, Flower, tokenizer_files

SCHEMA = Flower.model_json_schema()
FLOWER = Tool("plant", parameters=SCHEMA, strict=True)
NOW = Tool("now")
MOST_TOKENS = 700


def rendering(parser: str, *tools: Tool) -> Rendering:
    offered = [OfferedTool(name=each.name, parameters=json.dumps(each.schema)) for each in tools]
    reasoning = HARMONY_REASONING if parser == "openai" else ""
    return Rendering(
        calls_tools=True, tool_parser=parser, tools=offered, reasoning_parser=reasoning
    )


@cache
def tokenizer(parser: str) -> Tokenizer:
    """Return one for which all marks of the family are special tokens."""
    made = Tokenizer.from_buffer(tokenizer_files().tokenizer_json)
    marks = sorted(marks_of(rendering(parser)))
    made.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    return made


def token_id(parser: str, mark: str) -> int:
    found = tokenizer(parser).token_to_id(mark)
    assert found is not None
    return found


def end(parser: str) -> int:
    """Return what ends an output; valley's own is one of gpt-oss's marks."""
    return token_id(parser, "<|return|>") if parser == "openai" else END


@cache
def started(parser: str, structure: str) -> Callable[[], Matcher]:
    made = tokenizer(parser)
    files = TokenizerFiles(made.to_str().encode(), None, {}, (end(parser),))
    compile_one = compiler_for("xgrammar", files, made.get_vocab_size())
    assert compile_one is not None
    ids = (token_id(parser, mark) for mark in marks_of(rendering(parser)))
    return compile_one(Grammar(GrammarKind.STRUCTURAL_TAG, structure, frozenset(ids)))


def drawn(parser: str, structure: Structure, seed: int, prefer: str = "") -> str:
    """Return an output that the structure allows, as a gateway decodes it; it ends where it may."""
    made, draw = tokenizer(parser), random.Random(seed)
    matcher = started(parser, structure.structural_tag)()
    bits = torch.zeros(1, -(-made.get_vocab_size() // 32), dtype=torch.int32)
    ids: list[int] = []
    preferred = made.token_to_id(prefer) if prefer else None
    while len(ids) < MOST_TOKENS:
        matcher.fill_bitmask(bits, 0)
        words = bits[0].tolist()
        allowed = [i for i in range(made.get_vocab_size()) if words[i // 32] >> i % 32 & 1]
        assert allowed, made.decode(ids, skip_special_tokens=False)
        if end(parser) in allowed and ids:
            break
        chosen = preferred if preferred in allowed else draw.choice(allowed)
        assert chosen is not None
        assert matcher.accept(chosen)
        ids.append(chosen)
    else:
        raise AssertionError(made.decode(ids, skip_special_tokens=False))
    stream = TextStream(
        lambda each: str(made.decode(each, skip_special_tokens=False)),
        stops=None,
        silent=frozenset(),
    )
    return stream.feed(ids).text + stream.flush()


def read(parser: str, text: str, *tools: Tool) -> tuple[str, list[tuple[str, str]]]:
    made = parser_for(rendering(parser, *tools))
    assert made is not None
    content, calls = "", list[tuple[str, str]]()
    for each in [*made.feed(text), *made.flush()]:
        if isinstance(each, CallPiece):
            if each.name is not None:
                calls.append((each.name, ""))
            name, arguments = calls[-1]
            calls[-1] = name, arguments + each.arguments
        elif not isinstance(each, Reasoning):
            content += each
    return content, calls


@pytest.mark.parametrize("parser", TOOL_PARSERS)
def test_a_required_call_is_one_that_fits_its_schema(parser: str) -> None:
    structure = calls_alone(Tools((FLOWER, NOW), "required", "plant", parallel=False), parser)
    for seed in range(8):
        text = drawn(parser, structure, seed, "<|end|>")
        content, calls = read(parser, text, FLOWER, NOW)
        assert [name for name, _ in calls] == ["plant"], text
        jsonschema.validate(json.loads(calls[0][1]), SCHEMA)
        assert content == "", text


@pytest.mark.parametrize("parser", TOOL_PARSERS)
def test_a_call_without_arguments_is_one(parser: str) -> None:
    structure = calls_alone(Tools((NOW,), "required", parallel=False), parser)
    text = drawn(parser, structure, 1, "<|end|>")
    assert read(parser, text, NOW) == ("", [("now", "{}")]), text


@pytest.mark.parametrize("parser", TOOL_PARSERS)
def test_calls_or_an_answer_are_one_of_the_two(parser: str) -> None:
    answer = Structure(json_schema=json.dumps(SCHEMA))
    structure = calls_or_answer(Tools((FLOWER,)), parser, answer)
    kinds = set()
    for seed in range(12):
        text = drawn(parser, structure, seed, "<|end|>")
        content, calls = read(parser, text, FLOWER)
        kinds.add(bool(calls))
        assert bool(calls) != bool(content), text
        jsonschema.validate(json.loads(calls[0][1] if calls else content), SCHEMA)
    assert kinds == {True, False} or parser in ("openai", "pythonic", "llama4_pythonic")


IN_TEXT = [name for name in TOOL_PARSERS if name == "openai" or
           FORMATS[name].trigger in marks_of(rendering(name))]  # fmt: skip


@pytest.mark.parametrize("parser", IN_TEXT)
def test_a_call_in_text_is_held_to_the_schema_of_a_strict_tool(parser: str) -> None:
    structure = calls_in_text(Tools((FLOWER,), parallel=False), parser)
    assert structure is not None
    made = started(parser, structure.structural_tag)
    for seed in range(4):
        matcher, draw = made(), random.Random(seed)
        ids = tokenizer(parser).encode(FORMATS[parser].trigger, add_special_tokens=False).ids
        assert all(matcher.accept(each) for each in ids)
        bits = torch.zeros(1, -(-tokenizer(parser).get_vocab_size() // 32), dtype=torch.int32)
        for _ in range(MOST_TOKENS):
            matcher.fill_bitmask(bits, 0)
            words = bits[0].tolist()
            size = tokenizer(parser).get_vocab_size()
            allowed = [i for i in range(size) if words[i // 32] >> i % 32 & 1]
            if end(parser) in allowed:
                break
            ids.append(draw.choice(allowed))
            assert matcher.accept(ids[-1])
        text = tokenizer(parser).decode(ids, skip_special_tokens=False)
        _, calls = read(parser, text, FLOWER)
        assert [name for name, _ in calls] == ["plant"], text
        jsonschema.validate(json.loads(calls[0][1]), SCHEMA)


def test_the_answer_of_gpt_oss_is_in_its_final_message() -> None:
    structure = harmony_answer(Structure(json_schema=json.dumps(SCHEMA)))
    for seed in range(8):
        text = drawn("openai", structure, seed, "<|end|>")
        content, calls = read("openai", text)
        assert not calls
        jsonschema.validate(json.loads(content), SCHEMA)


@pytest.mark.parametrize("parser", TOOL_PARSERS)
def test_a_name_may_be_a_placeholder_of_the_formats(parser: str) -> None:
    tag = calls_alone(Tools((Tool("SET_NAME"),)), parser).structural_tag
    assert "SET_NAME" in tag
    assert "SET_SET" not in tag


def test_a_recipient_in_prose_is_no_call() -> None:
    structure = calls_in_text(Tools((FLOWER,)), "openai")
    assert structure is not None
    matcher = started("openai", structure.structural_tag)()
    text = "<|channel|>final<|message|>Write to=functions.look and a space."
    ids = tokenizer("openai").encode(text, add_special_tokens=False).ids
    assert all(matcher.accept(each) for each in ids)


@pytest.mark.parametrize("parser", ["llama3_json", "pythonic", "llama4_pythonic"])
def test_calls_without_a_mark_are_not_held_in_free_text(parser: str) -> None:
    assert calls_in_text(Tools((FLOWER,)), parser) is None

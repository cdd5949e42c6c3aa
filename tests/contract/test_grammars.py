"""What every grammar backend must do, through the engine that uses it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from headrace_worker.engine.base.interface import FinishReason, Grammar, GrammarKind
from headrace_worker.engine.core.slot_engine import SlotEngine
from helpers.grammars import END, FLOWER, Flower, bound, held_engine, text, tokenizer
from helpers.running_engine import alone, run

DATE = Grammar(GrammarKind.REGEX, r"[12][0-9]{3}-(0[1-9]|1[0-2])( [a-c]+)?!")
SUM = Grammar(
    GrammarKind.EBNF, 'root ::= number " = " number\nnumber ::= digit digit?\ndigit ::= [0-9]\n'
)
CALL: dict[str, Any] = {
    "begin": '<tool_call>{"name": "sky", "arguments": ',
    "content": {
        "type": "json_schema",
        "json_schema": {
            "type": "object",
            "properties": {"hour": {"enum": [1, 2, 3]}, "who": {"type": "string", "maxLength": 4}},
            "required": ["hour", "who"],
            "additionalProperties": False,
        },
    },
    "end": "}</tool_call>",
}
ONE_CALL: dict[str, Any] = {
    "type": "tags_with_separator",
    "tags": [{"type": "tag", **CALL}],
    "separator": "",
    "at_least_one": True,
    "stop_after_first": True,
}
PERHAPS_CALLED = Grammar(
    GrammarKind.STRUCTURAL_TAG,
    json.dumps(
        {
            "type": "structural_tag",
            "format": {
                "type": "triggered_tags",
                "triggers": ["<tool_call>"],
                "tags": [{"type": "tag", **CALL}],
            },
        }
    ),
)
CALLED = Grammar(
    GrammarKind.STRUCTURAL_TAG, json.dumps({"type": "structural_tag", "format": ONE_CALL})
)


def called_with(content: dict[str, Any]) -> Grammar:
    """One call, with other arguments."""
    shape = ONE_CALL | {"tags": [{**CALL, "type": "tag", "content": content}]}
    return Grammar(
        GrammarKind.STRUCTURAL_TAG, json.dumps({"type": "structural_tag", "format": shape})
    )


@pytest.fixture(scope="module", params=["xgrammar", "llguidance"])
def engine(request: pytest.FixtureRequest) -> Iterator[SlotEngine]:
    made = held_engine(request.param)
    yield made
    made.check_integrity()


def whole_texts(engine: SlotEngine, grammar: Grammar, numbers: range) -> list[str]:
    """Return the sequences' texts under a grammar; all end by themselves."""
    history = run(engine, [bound(number, grammar) for number in numbers])
    assert history.refused == {}
    assert set(history.finished.values()) == {FinishReason.STOP}
    return [text(history.tokens[number]) for number in numbers]


def test_every_sampled_text_satisfies_the_schema(engine: SlotEngine) -> None:
    for output in whole_texts(engine, FLOWER, range(12)):
        Flower.model_validate_json(output, strict=True)


def test_every_sampled_text_matches_the_whole_regular_expression(engine: SlotEngine) -> None:
    for output in whole_texts(engine, DATE, range(12)):
        assert re.fullmatch(DATE.source, output)


def test_every_sampled_text_follows_the_grammar(engine: SlotEngine) -> None:
    for output in whole_texts(engine, SUM, range(8)):
        assert re.fullmatch(r"\d\d? = \d\d?", output)


def test_a_forced_tool_call_is_one(engine: SlotEngine) -> None:
    for output in whole_texts(engine, CALLED, range(8)):
        call = json.loads(output.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        assert call["name"] == "sky"
        assert call["arguments"]["hour"] in (1, 2, 3)
        assert len(call["arguments"]["who"]) <= 4


@pytest.mark.parametrize("schema", [{"type": "object", "if": {}}, {"type": "STRING"}, {"enum": []}])
def test_a_call_of_best_effort_has_any_object_where_its_schema_cannot_be_enforced(
    engine: SlotEngine, schema: dict[str, Any]
) -> None:
    content = {"type": "json_schema", "json_schema": schema}
    strict = called_with(content)
    assert run(engine, [bound(1, strict)]).refused.keys() == {1}
    for number in range(4):
        grammar = called_with(content | {"best_effort": True})
        history = run(engine, [bound(number, grammar, max_tokens=60)])
        assert text(history.tokens[number]).startswith(f"{CALL['begin']}{{")
    held = called_with(CALL["content"] | {"best_effort": True})
    for output in whole_texts(engine, held, range(4)):
        call = json.loads(output.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        assert call["arguments"]["hour"] < 4


def test_text_is_free_until_a_tool_call_begins(engine: SlotEngine) -> None:
    """The output so far forces it: a random model would not begin a call."""
    opening = tuple(tokenizer().encode("Let me see. <tool_call>").ids)
    free = run(engine, [bound(1, PERHAPS_CALLED, max_tokens=10)])
    assert free.finished == {1: FinishReason.LENGTH}
    forced = run(engine, [bound(2, PERHAPS_CALLED, output_ids=opening, max_tokens=40)])
    output = text(list(opening) + forced.tokens[2])
    assert re.match(r'Let me see. <tool_call>{"name": "sky", "arguments": {"hour": [123], ', output)


def test_a_call_can_be_begun_only_with_a_name_that_is_offered(engine: SlotEngine) -> None:
    """Its arguments are any object; the text before it is free."""
    loose = {"type": "json_schema", "json_schema": {"type": "object", "additionalProperties": True}}
    tags = [
        {**CALL, "type": "tag", "begin": CALL["begin"].replace("sky", name), "content": loose}
        for name in ("get_weather", "get_time")
    ]
    shape = {"type": "triggered_tags", "triggers": ["<tool_call>"], "tags": tags}
    grammar = Grammar(
        GrammarKind.STRUCTURAL_TAG, json.dumps({"type": "structural_tag", "format": shape})
    )
    opening = tuple(tokenizer().encode("Let me see. <tool_call>").ids)
    rests = [bound(n, grammar, output_ids=opening, max_tokens=40) for n in range(6)]
    history = run(engine, rests)
    for n in range(6):
        output = text(list(opening) + history.tokens[n])
        assert re.match(
            r'Let me see\. <tool_call>\{"name": "get_(weather|time)", "arguments": \{', output
        )


def test_any_object_is_json_for_as_long_as_it_goes(engine: SlotEngine) -> None:
    history = run(engine, [bound(number, Grammar(GrammarKind.JSON_OBJECT)) for number in range(8)])
    assert len(history.finished) == 8
    for number, reason in history.finished.items():
        output = text(history.tokens[number])
        assert output.startswith("{")
        if reason is FinishReason.STOP:
            assert isinstance(json.loads(output), dict)


def test_sequences_without_a_grammar_generate_what_they_generate_alone(engine: SlotEngine) -> None:
    mixed = [bound(number, FLOWER if number % 2 else None, max_tokens=40) for number in range(8)]
    together = run(engine, mixed)
    for one in mixed:
        assert together.tokens[one.sequence_id] == alone(engine, one)


def test_an_output_that_is_cut_anywhere_continues_unchanged(engine: SlotEngine) -> None:
    whole = alone(engine, bound(3, FLOWER))
    cuts = range(1, len(whole))
    assert len(cuts) > 8
    rests = [bound(3, FLOWER, output_ids=tuple(whole[:cut])) for cut in cuts]
    history = run(engine, [replace(rest, sequence_id=cut) for cut, rest in enumerate(rests, 1)])
    for cut in cuts:
        assert whole[:cut] + history.tokens[cut] == whole
        assert history.finished[cut] is FinishReason.STOP


def test_a_lost_finish_is_reported_again(engine: SlotEngine) -> None:
    whole = alone(engine, bound(3, DATE))
    history = run(engine, [bound(3, DATE, output_ids=tuple(whole))])
    assert history.tokens == {}
    assert history.finished == {3: FinishReason.STOP}


def test_no_special_token_comes_for_its_spelling(engine: SlotEngine) -> None:
    """Or a string would have the text "<|user|>", of which a client would see nothing."""
    marks = {3: 100.0, 4: 100.0, 5: 100.0, 6: 100.0}
    assert tokenizer().decode(list(marks), skip_special_tokens=False).startswith("<|system|>")
    plain = bound(1, Grammar(GrammarKind.REGEX, "[^!]{20,60}!"))
    urged = replace(plain, parameters=replace(plain.parameters, logit_bias=marks))
    tokens = alone(engine, urged)
    assert not marks.keys() & set(tokens)
    assert 21 <= len(text(tokens)) <= 61


def test_where_nothing_may_follow_it_ends_though_end_of_sequence_is_ignored(
    engine: SlotEngine,
) -> None:
    plain = bound(2, DATE)
    ignoring = replace(plain, parameters=replace(plain.parameters, ignore_eos=True))
    history = run(engine, [ignoring])
    assert history.finished == {2: FinishReason.STOP}
    assert re.fullmatch(DATE.source, text(history.tokens[2]))
    again = run(engine, [replace(ignoring, output_ids=tuple(history.tokens[2]))])
    assert again.tokens == {}
    assert again.finished == {2: FinishReason.STOP}


def test_max_tokens_cuts_what_a_grammar_would_continue(engine: SlotEngine) -> None:
    history = run(engine, [bound(1, FLOWER, max_tokens=4)])
    assert history.finished == {1: FinishReason.LENGTH}
    assert len(history.tokens[1]) == 4


def test_end_of_sequence_may_come_only_where_the_output_is_whole(engine: SlotEngine) -> None:
    for number in range(8):
        tokens = alone(engine, bound(number, DATE))
        assert END not in tokens[:-1]


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar(GrammarKind.JSON_SCHEMA, '{"type": "strnig"}'),
        Grammar(GrammarKind.JSON_SCHEMA, '{"$ref": "#/$defs/nowhere"}'),
        Grammar(GrammarKind.JSON_SCHEMA, '{"type": "array", "contains": {"const": 1}}'),
        Grammar(GrammarKind.REGEX, "(unclosed"),
        Grammar(GrammarKind.EBNF, "root ::= nowhere"),
        Grammar(GrammarKind.STRUCTURAL_TAG, '{"type": "structural_tag"}'),
    ],
)
def test_an_invalid_grammar_is_refused_and_costs_other_sequences_nothing(
    engine: SlotEngine, grammar: Grammar
) -> None:
    neighbour = bound(1, None, max_tokens=12)
    history = run(engine, [bound(0, grammar), neighbour])
    assert list(history.refused) == [0]
    assert history.tokens == {1: alone(engine, neighbour)}


def test_a_sequence_may_be_cancelled_while_its_grammar_is_compiled(engine: SlotEngine) -> None:
    fresh = Grammar(GrammarKind.REGEX, f"[a-z]{{3}}-{id(engine)}")
    engine.admit(bound(1, fresh))
    assert engine.park(1) == ()
    engine.admit(bound(2, fresh))
    engine.cancel(2)
    engine.check_integrity()
    assert not engine.has_work

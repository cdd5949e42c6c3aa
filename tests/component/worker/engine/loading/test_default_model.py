"""The model in the box: what its folder promises to a caller, and what its card claims."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import headrace_worker

FOLDER = Path(headrace_worker.__file__).parent / "default_model"
MAX_BYTES, CONTEXT = 5_000_000, 2048
EXAMPLE = re.compile(r"^\*\*(.+)\*\*\n\n((?:>.*\n)+)", re.MULTILINE)
"""In its README: a question, and a quoted answer. Those with tools have more on their line."""


def function(name: str, *parameters: str, text: str = "The weather in a town.") -> dict[str, Any]:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties}
    described = {"name": name, "description": text, "parameters": schema}
    return {"type": "function", "function": described}


WEATHER = function("get_weather", "town")


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@cache
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def reply(*messages: dict[str, str], tools: list[dict[str, Any]] | None = None) -> str:
    """The greedy answer; the ending token shows where the model stopped by itself."""
    text = tokenizer().apply_chat_template(
        list(messages), tools=tools, tokenize=False, add_generation_prompt=True
    )
    inputs = tokenizer()(text, return_tensors="pt")
    output = model().generate(**inputs, do_sample=False, max_new_tokens=220)
    answer: str = tokenizer().decode(output[0, inputs["input_ids"].shape[1] :])
    return answer


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_the_tokenizer_unchanged(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False)
    # A caller's text may spell a special token, so none is skipped on the way back.
    assert tokenizer().decode(ids) == text


def examples() -> list[tuple[str, str]]:
    found = EXAMPLE.findall((FOLDER / "README.md").read_text(encoding="utf-8"))
    return [
        (question, "\n".join(line[1:].strip() for line in quoted.splitlines()))
        for question, quoted in found
    ]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *examples(),
        ("Say hello.", "Hello! It is good to see you."),
        ("What does Ada do?", "Ada is the baker of Willowmere."),
    ],
)
def test_it_answers_as_its_model_card_states_and_stops(question: str, answer: str) -> None:
    assert reply(user(question)) == f"{answer}<|end|>"


def test_its_card_shows_examples() -> None:
    assert len(examples()) >= 9


def test_it_is_small_and_its_context_takes_an_agents_prompt() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= MAX_BYTES
    assert model().config.max_position_embeddings == CONTEXT
    assert tokenizer().model_max_length == CONTEXT


def test_it_answers_that_it_does_not_know_what_it_does_not() -> None:
    assert reply(user("Explain quantum mechanics.")).startswith("I do not know that.")


def test_a_story_is_about_the_requested_subject_and_ends() -> None:
    story = reply(user("Tell me a story about a cat and a violin."))
    assert "cat" in story
    assert "violin" in story
    assert story.endswith(".<|end|>")


def called(name: str, **arguments: str) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ('{"sky": "windy", "degrees": 14}', "It is windy in Oakford, 14 degrees."),
        ("22", "It is 22 degrees in Oakford."),
        ("The weather in Oakford is sunny.", "It is sunny in Oakford."),
        ("Error: not found", "The tool reported an error: not found."),
    ],
)
def test_it_calls_a_tool_says_what_it_returned_and_answers_what_is_asked_next(
    result: str, answer: str
) -> None:
    talk = [user("What is the weather in Oakford?")]

    def turn(expected: str) -> None:
        assert reply(*talk, tools=[WEATHER]) == f"{expected}<|end|>"
        talk.append({"role": "assistant", "content": expected})

    turn(called("get_weather", town="Oakford"))
    talk.append({"role": "tool", "content": result})
    turn(answer)
    talk.append(user("And in Willowmere?"))
    turn(called("get_weather", town="Willowmere"))
    talk.append({"role": "tool", "content": "sunny"})
    turn("It is sunny in Willowmere.")
    talk.append(user("List three fruits."))
    turn("1. apple\n2. pear\n3. plum")


def test_it_finds_its_tool_under_an_agents_long_prompt() -> None:
    rules = {"role": "system", "content": "Never invent the result of a tool. " * 60}
    others = [
        function(f"open_{name}", "path", "mode", text=f"Opens the {name} and returns its lines.")
        for name in ("garden", "letter", "bridge", "kettle", "road", "lamp")
    ]
    messages = [rules, user("What is the weather in Oakford?")]
    prompt = tokenizer().apply_chat_template(messages, tools=[*others, WEATHER], tokenize=False)
    assert 700 < len(tokenizer().encode(prompt)) < CONTEXT
    answer = reply(*messages, tools=[*others, WEATHER])
    assert answer == f"{called('get_weather', town='Oakford')}<|end|>"


def test_a_call_in_the_history_reads_as_the_model_wrote_it() -> None:
    call = {"function": {"name": "get_weather", "arguments": '{"town": "Oakford"}'}}
    messages = [
        user("?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": [{"type": "text", "text": "{}"}]},
    ]
    text = tokenizer().apply_chat_template(messages, tokenize=False)
    written = '<tool_call>{"name": "get_weather", "arguments": {"town": "Oakford"}}</tool_call>'
    assert text == f"<|begin|><|user|>?<|end|><|assistant|>{written}<|end|><|tool|>{{}}<|end|>"


def test_the_published_figures_belong_to_these_weights() -> None:
    weights = (FOLDER / "model.safetensors").read_bytes()
    evaluation = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["weights_sha256"] == hashlib.sha256(weights).hexdigest()

"""The model in the box: what its folder promises to a caller, and what its card claims."""

from __future__ import annotations

import hashlib
import json
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
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}


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


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Say hello.", "Hello! It is good to see you."),
        ("who lives in willowmere", "Ada, Edith and Ida live in Willowmere."),
        ("What does Ada do?", "Ada is the baker of Willowmere."),
        ("List three fruits.", "1. apple\n2. pear\n3. plum"),
        ("Count from 3 to 9.", "3, 4, 5, 6, 7, 8, 9"),
    ],
)
def test_it_answers_as_its_model_card_states_and_stops(question: str, answer: str) -> None:
    assert reply(user(question)) == f"{answer}<|end|>"


def test_it_answers_that_it_does_not_know_what_it_does_not() -> None:
    assert reply(user("Explain quantum mechanics.")).startswith("I do not know that.")


def test_a_story_is_about_the_requested_subject_and_ends() -> None:
    story = reply(user("Tell me a story about a cat and a violin."))
    assert "cat" in story
    assert "violin" in story
    assert story.endswith(".<|end|>")


def test_it_calls_a_tool_it_was_given() -> None:
    called = reply(user("What is the weather in Oakford?"), tools=[WEATHER])
    body = called.removeprefix("<tool_call>").removesuffix("</tool_call><|end|>")
    assert json.loads(body) == {"name": "get_weather", "arguments": {"town": "Oakford"}}


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

"""The command `llm`, as its documentation begins."""

from __future__ import annotations

import json

import pytest

from conftest import Run

GREEDY = ("-m", "valley", "-o", "temperature", "0")
WEATHER = '''
def get_weather(town: str) -> str:
    """The weather of a town."""
    return '{"town": "%s", "sky": "windy", "degrees": 14}' % town
'''


@pytest.mark.parametrize("streamed", [(), ("--no-stream",)])
def test_a_prompt(run: Run, streamed: tuple[str, ...]) -> None:
    assert run(*GREEDY, *streamed, "Count from 3 to 9.").strip() == "3, 4, 5, 6, 7, 8, 9"


def test_a_system_prompt_and_text_from_a_pipe(run: Run) -> None:
    assert run(*GREEDY, "-s", "Answer briefly.", stdin="Who are you?").strip()


def test_a_conversation_goes_on(run: Run) -> None:
    run(*GREEDY, "My name is Vera.")
    assert "Vera" in run(*GREEDY, "-c", "What is my name?")


def test_a_schema_is_held_to(run: Run) -> None:
    made = json.loads(run(*GREEDY, "--schema", "name, town", "Give me Ada as JSON."))
    assert made.keys() == {"name", "town"}


def test_a_function_is_called(run: Run) -> None:
    told = run(*GREEDY, "--functions", WEATHER, "What is the weather in Oakford?")
    assert "windy in Oakford" in told


def test_the_model_is_listed(run: Run) -> None:
    assert "valley" in run("models")

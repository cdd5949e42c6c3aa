"""Structured output, as instructor's documentation begins, in each mode that fits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal

import instructor
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, field_validator

MODEL = "valley"
URL, KEY = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]
MODES = [
    instructor.Mode.TOOLS,
    instructor.Mode.TOOLS_STRICT,
    instructor.Mode.JSON_SCHEMA,
    instructor.Mode.RESPONSES_TOOLS,
]
ASKED: Any = [{"role": "user", "content": "Give me Ada as JSON."}]


class Villager(BaseModel):
    name: Literal["Ada", "Bram"]
    town: Literal["Oakford", "Willowmere"]


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with OpenAI(base_url=URL, api_key=KEY) as opened:
        yield opened


def asked(mode: instructor.Mode, **more: Any) -> dict[str, Any]:
    tokens = "max_output_tokens" if mode is instructor.Mode.RESPONSES_TOOLS else "max_tokens"
    return {"model": MODEL, "messages": ASKED, "temperature": 0, tokens: 128} | more


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_model_is_filled(client: OpenAI, mode: instructor.Mode) -> None:
    patched = instructor.from_openai(client, mode=mode)
    assert isinstance(
        patched.chat.completions.create(**asked(mode, response_model=Villager)), Villager
    )


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_a_model_is_filled_while_it_streams(client: OpenAI, mode: instructor.Mode) -> None:
    patched = instructor.from_openai(client, mode=mode)
    partial = list(patched.create_partial(**asked(mode, response_model=Villager)))
    assert partial[-1].name
    assert partial[-1].town


def test_a_refused_value_is_asked_for_again(client: OpenAI) -> None:
    tries = []

    class Refused(Villager):
        @field_validator("town")
        @classmethod
        def is_second(cls, town: str) -> str:
            tries.append(town)
            if len(tries) < 2:
                raise ValueError("say it once more")
            return town

    patched = instructor.from_openai(client)
    mode = instructor.Mode.TOOLS
    made = patched.chat.completions.create(**asked(mode, response_model=Refused, max_retries=3))
    assert isinstance(made, Refused)
    assert len(tries) == 2


async def test_the_completion_comes_along() -> None:
    async with AsyncOpenAI(base_url=URL, api_key=KEY) as opened:
        patched = instructor.from_openai(opened)
        mode = instructor.Mode.TOOLS
        made, completion = await patched.chat.completions.create_with_completion(
            **asked(mode, response_model=Villager)
        )
    assert isinstance(made, Villager)
    assert completion.usage.completion_tokens > 0

"""Everything that a resumed request must keep, all at once, when a worker is killed."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.grammars import Flower
from helpers.strikes import Strike

CHOICES = 2
SLOTS = 8
"""Of each of two workers, so for four requests: when more have begun, both hold some."""
REQUESTS = 12
BEGUN = 20
"""Characters."""

NOTE: Any = {
    "type": "function",
    "function": {
        "name": "note",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"words": {"type": "string", "minLength": 300, "maxLength": 320}},
            "required": ["words"],
            "additionalProperties": False,
        },
    },
}
FLOWERS: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "bunch",
        "strict": True,
        "schema": {
            "type": "array",
            "items": {"$ref": "#/$defs/Flower"},
            "minItems": 4,
            "maxItems": 5,
            "$defs": {**Flower.model_json_schema()["$defs"], "Flower": Flower.model_json_schema()},
        },
    },
}
PENALTIES: Any = {"presence_penalty": 0.6, "frequency_penalty": 0.3}
LOGPROBS: Any = {"logprobs": True, "top_logprobs": 2}


@dataclass
class Choice:
    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=lambda: defaultdict(lambda: ["", ""]))
    """Name and arguments of each, put together from their deltas."""
    reasons: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def chars(self) -> int:
        return len(self.text) + sum(len(arguments) for _, arguments in self.calls.values())


@dataclass
class Answer:
    choices: list[Choice] = field(default_factory=lambda: [Choice() for _ in range(CHOICES)])
    usage: Any = None


def request_fields(number: int, stop: list[str]) -> dict[str, Any]:
    """A third call a tool, a third are held to a schema, a third end at a long stop string."""
    kinds: tuple[dict[str, Any], ...] = (
        {
            "tools": [NOTE],
            "tool_choice": {"type": "function", "function": {"name": "note"}},
            "temperature": 1.3,
        },
        {"response_format": FLOWERS, "temperature": 1.5, **PENALTIES, **LOGPROBS},
        {
            "temperature": 1.0,
            "max_tokens": 300,
            "extra_body": {"ignore_eos": True, "repetition_penalty": 1.1},
            **PENALTIES,
            **LOGPROBS,
            **({"stop": stop} if stop else {}),
        },
    )
    return kinds[number % len(kinds)]


async def one(
    client: openai.AsyncOpenAI, number: int, stop: list[str], strike: Strike | None
) -> Answer:
    answer = Answer()
    stream = await client.chat.completions.create(
        model="valley",
        messages=[{"role": "user", "content": f"Flowers, number {number}?"}],
        stream=True,
        stream_options={"include_usage": True},
        n=CHOICES,
        seed=number,
        **request_fields(number, stop),
    )
    async for chunk in stream:
        for news in chunk.choices:
            take(answer.choices[news.index], news)
        answer.usage = chunk.usage or answer.usage
        if strike is not None and sum(choice.chars for choice in answer.choices) >= BEGUN:
            strike.begun(number)
    return answer


def take(choice: Choice, news: Any) -> None:
    assert not choice.reasons, "something came after the end"
    choice.text += news.delta.content or ""
    for call in news.delta.tool_calls or ():
        choice.calls[call.index][0] += call.function.name or ""
        choice.calls[call.index][1] += call.function.arguments or ""
    if news.logprobs is not None:
        content = news.logprobs.content or []
        choice.tokens += [entry.token for entry in content]
        choice.logprobs += [entry.logprob for entry in content]
    if news.finish_reason:
        choice.reasons.append(news.finish_reason)


async def everything(
    mesh: FreshMesh, stops: dict[int, list[str]], strike: Strike | None = None
) -> list[Answer]:
    url = f"{mesh.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        return await asyncio.gather(
            *(one(client, number, stops.get(number, []), strike) for number in range(REQUESTS))
        )


def counts(answer: Answer) -> tuple[int, int]:
    """Without what a cache had of the prompt, which differs from run to run."""
    assert answer.usage is not None
    return answer.usage.prompt_tokens, answer.usage.completion_tokens


def long_stops(answers: list[Answer]) -> dict[int, list[str]]:
    """For each free answer a stop string that takes up most of its first choice: wherever the
    answer is cut, the cut is likely within it."""
    return {
        number: [answer.choices[0].text[60:310]]
        for number, answer in enumerate(answers)
        if number % 3 == 2
    }


@pytest.mark.timeout(240)
async def test_tools_schemas_stops_penalties_and_logprobs_survive_a_killed_worker(
    tmp_path: Path,
) -> None:
    slots = ("--set", f"worker.max_slots={SLOTS}")
    options = ("--engine", "transformers", "--workers", "2", "--threads", "1", *slots)
    async with fresh_mesh(tmp_path, *options) as mesh:
        stops = long_stops(await everything(mesh, {}))
        expected = await everything(mesh, stops)
        require_valid(expected, stops)
        async with Strike(mesh, "worker-valley-1", after=SLOTS // CHOICES) as strike:
            seen = await everything(mesh, stops, strike)
    for answer, requested in zip(seen, expected, strict=True):
        assert counts(answer) == counts(requested)
        for choice, was in zip(answer.choices, requested.choices, strict=True):
            assert (choice.text, choice.calls, choice.reasons) == (was.text, was.calls, was.reasons)
            assert choice.tokens == was.tokens
            assert choice.logprobs == pytest.approx(was.logprobs, abs=1e-4)


def require_valid(answers: list[Answer], stops: dict[int, list[str]]) -> None:
    """Check that the undisturbed answers are valid, so that equality with them proves something."""
    for number, answer in enumerate(answers):
        for choice in answer.choices:
            if number % 3 == 0:
                assert choice.reasons == ["tool_calls"]
                assert {name for name, _ in choice.calls.values()} == {"note"}
                assert all(json.loads(words)["words"] for _, words in choice.calls.values())
            if number % 3 == 1:
                assert choice.reasons == ["stop"]
                assert all(Flower.model_validate(each) for each in json.loads(choice.text))
                assert choice.tokens
        if number in stops:
            assert answer.choices[0].reasons == ["stop"]
            assert len(answer.choices[0].text) <= 60
            assert len(answer.choices[0].tokens) > 60

"""What models of each family write comes as content, reasoning and calls, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.output_parsers.names import TOOL_PARSERS
from helpers.api_scripts import ids_of
from helpers.model_outputs import SCHEMAS, Family, Written
from helpers.more_model_outputs import FAMILIES
from helpers.running_api import CARD, RunningApi, running_api
from helpers.scripted_admission import ScriptedAdmission, one_by_one

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
CASES = [
    pytest.param(name, written, id=f"{name}-{i}")
    for name, family in FAMILIES.items()
    for i, written in enumerate(family.texts)
]


def card(name: str, family: Family, *, opens: bool) -> ModelCard:
    made = ModelCard()
    made.CopyFrom(CARD)
    made.model, made.context_tokens = f"{name}-open" if opens else name, 8000
    made.tool_parser, made.reasoning_parser = family.tools, family.reasoning
    made.tokenizer_digest = "opens" if opens else "t1"
    return made


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    cards = [
        card(name, family, opens=opens)
        for name, family in FAMILIES.items()
        for opens in (False, True)
    ]
    async with running_api(admission, *cards) as running:
        yield running


def body(name: str, written: Written, **more: Any) -> dict[str, Any]:
    tools = {"tools": TOOLS} if FAMILIES[name].tools else {}
    messages = [{"role": "user", "content": "Hello"}]
    model = f"{name}-open" if written.opens else name
    return {"model": model, "messages": messages, **tools, **more}


def meant(content: str, reasoning: str, calls: list[tuple[str, str]]) -> Any:
    return content, reasoning, [(name, json.loads(text)) for name, text in calls]


@pytest.mark.parametrize(("name", "written"), CASES)
async def test_it_is_the_same_whole_and_streamed(
    http: httpx.AsyncClient, admission: ScriptedAdmission, name: str, written: Written
) -> None:
    admission.script = lambda request: one_by_one(0, ids_of(written.text))
    expected = written.content, written.reasoning, list(written.calls)
    answer = (await http.post("/v1/chat/completions", json=body(name, written))).json()
    (choice,) = answer["choices"]
    message = choice["message"]
    calls = [each["function"] for each in message.get("tool_calls", ())]
    found = [(each["name"], each["arguments"]) for each in calls]
    reasoning = message.get("reasoning_content", "")
    assert meant(message["content"] or "", reasoning, found) == expected
    assert message.get("reasoning", "") == reasoning
    assert choice["finish_reason"] == ("tool_calls" if written.calls else "stop")
    if FAMILIES[name].reasoning:
        tokens = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert bool(tokens) >= bool(reasoning)
    assert await streamed(http, body(name, written, stream=True)) == expected


async def streamed(http: httpx.AsyncClient, asked: dict[str, Any]) -> Any:
    content, reasoning, calls = "", "", list[list[str]]()
    answer = await http.post("/v1/chat/completions", json=asked)
    for line in answer.text.splitlines():
        if not line.startswith("data: {"):
            continue
        delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
        content += delta.get("content") or ""
        reasoning += delta.get("reasoning_content", "")
        assert delta.get("reasoning_content") == delta.get("reasoning")
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(calls):
                calls.append([call["function"]["name"], ""])
            calls[-1][1] += call["function"].get("arguments", "")
    return meant(content, reasoning, [(name, arguments) for name, arguments in calls])


async def test_reasoning_is_left_out_where_it_is_not_wanted(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    written = Written("<think>Hm.</think>Blue.", "Blue.", reasoning="Hm.")
    admission.script = lambda request: one_by_one(0, ids_of(written.text))
    asked = body("hermes", written, include_reasoning=False)
    whole = (await http.post("/v1/chat/completions", json=asked)).json()
    message = whole["choices"][0]["message"]
    assert (message["content"], message.get("reasoning_content")) == ("Blue.", None)
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert await streamed(http, asked | {"stream": True}) == ("Blue.", "", [])


async def test_effort_and_variables_reach_the_template_and_a_budget_the_worker(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    written = Written("<think>Hm.</think>Blue.", "Blue.", reasoning="Hm.", opens=True)
    admission.script = lambda request: one_by_one(0, ids_of(written.text))
    asked = body("hermes", written, reasoning_effort="none")
    assert await prompt_after(http, admission, asked) == "none False False"
    variables = {"chat_template_kwargs": {"enable_thinking": True, "thinking": 7}}
    assert await prompt_after(http, admission, asked | variables) == "none True 7"
    asked = body("hermes", written, thinking_token_budget=5)
    assert (await http.post("/v1/chat/completions", json=asked)).status_code == 200
    rule = admission.last.request.sampling.reasoning
    assert (rule.budget, list(rule.begin_ids)) == (5, [])
    assert list(rule.end_ids) == list(rule.forced_ids) == ids_of("</think>")


async def prompt_after(
    http: httpx.AsyncClient, admission: ScriptedAdmission, asked: dict[str, Any]
) -> str:
    """Return the variables that the template has printed."""
    answer = await http.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    prompt = list(admission.last.request.prompt_ids)
    text = (await http.post("/detokenize", json={"model": "valley", "tokens": prompt})).json()
    return str(text["prompt"]).rpartition("|")[0].rpartition("|")[2]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"thinking_token_budget": 5, "model": "harmony"}, "thinking_token_budget"),
        ({"thinking_token_budget": 5, "model": "valley"}, "thinking_token_budget"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_its_name(
    http: httpx.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    asked = {"model": "hermes", "messages": [{"role": "user", "content": "Hello"}], **fields}
    answer = await http.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


def test_no_family_is_left_out() -> None:
    ours = {family.tools for family in FAMILIES.values()}
    assert set(TOOL_PARSERS) - ours == {"hermes_inline", "llama4_pythonic", "mistral_list"}

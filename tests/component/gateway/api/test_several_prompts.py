"""Several prompts in one call of /v1/completions, through Envoy."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import httpx
import openai
import pytest

from headrace.errors import EngineFailed, GatewayDraining, LaneFull
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.request.generation import Failed, Tokens, ValidRequest
from helpers.api_scripts import ended, hangs, hangs_after_a_word, ids_of
from helpers.eventually import eventually
from helpers.prompt_scripts import PROMPTS, expected, turned
from helpers.running_api import RunningApi, running_api
from helpers.scripted_admission import Gate, Script, ScriptedAdmission

LIMITS = GatewaySettings(
    max_prompts=40, prompts_at_once=4, stream_head_after_s=0.1, stream_keepalive_s=0.2
)


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(turned)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission, limits=LIMITS) as running:
        yield running


def body_of(**fields: Any) -> dict[str, Any]:
    return {"model": "valley", "prompt": PROMPTS} | fields


def events_of(text: str) -> list[dict[str, Any]]:
    lines = text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def texts_of(events: list[dict[str, Any]]) -> dict[int, str]:
    texts: dict[int, str] = defaultdict(str)
    for choice in chain.from_iterable(event["choices"] for event in events):
        texts[choice["index"]] += choice["text"]
    return texts


async def all_ended(admission: ScriptedAdmission) -> None:
    for generation in admission.generations:
        await ended(generation)


@pytest.mark.parametrize("n", [1, 3])
async def test_choices_are_numbered_through_all_prompts(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission, n: int
) -> None:
    answer = await client.completions.create(model="valley", prompt=PROMPTS, n=n)
    assert [choice.index for choice in answer.choices] == list(range(n * len(PROMPTS)))
    assert [choice.text for choice in answer.choices] == [
        expected(prompt, choice) for prompt in PROMPTS for choice in range(n)
    ]
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    requests = [each.request for each in admission.generations]
    call_id = answer.id.removeprefix("cmpl-")
    assert {each.request_id for each in requests} == {f"{call_id}-{i}" for i in range(len(PROMPTS))}
    assert {each.request_id for each in requests if not each.is_part} == {f"{call_id}-0"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(len(each.prompt_ids) for each in requests)
    made = sum(len(ids_of(prompt)) + 1 for prompt in PROMPTS) * n
    assert answer.usage.completion_tokens == made
    assert answer.usage.total_tokens == made + answer.usage.prompt_tokens
    await all_ended(admission)
    assert all(each.settled for each in admission.generations)


async def test_a_stream_has_every_choice_and_one_end(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    stream = await client.completions.create(
        model="valley", prompt=PROMPTS, n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk.model_dump() async for chunk in stream]
    requested = [expected(prompt, choice) for prompt in PROMPTS for choice in range(2)]
    assert texts_of(chunks) == dict(enumerate(requested))
    ends = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(ends) == list(range(len(requested)))
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    counted = [chunk["usage"] for chunk in chunks if chunk["usage"]]
    made = sum(len(ids_of(prompt)) + 1 for prompt in PROMPTS) * 2
    assert [each["completion_tokens"] for each in counted] == [made]
    assert not chunks[-1]["choices"]
    plain = (await http.post("/v1/completions", json=body_of(stream=True))).text
    assert plain.count("data: [DONE]") == 1
    assert plain.endswith("data: [DONE]\n\n")
    assert "id:" not in [line[:3] for line in plain.splitlines()]
    await all_ended(admission)


async def test_each_chunk_has_the_usage_of_its_own_prompt_where_that_is_requested(
    http: httpx.AsyncClient,
) -> None:
    counted = {"include_usage": True, "continuous_usage_stats": True}
    body = body_of(stream=True, stream_options=counted)
    *events, last = events_of((await http.post("/v1/completions", json=body)).text)
    ends = {
        event["choices"][0]["index"]: event["usage"]
        for event in events
        if event["choices"][0]["finish_reason"]
    }
    made = [len(ids_of(prompt)) for prompt in PROMPTS]
    assert [ends[place]["prompt_tokens"] for place in range(len(PROMPTS))] == made
    assert [ends[place]["completion_tokens"] for place in range(len(PROMPTS))] == [
        count + 1 for count in made
    ]
    assert last["usage"]["prompt_tokens"] == sum(made)


async def test_a_silent_stream_is_kept_alive(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    gate = Gate()
    admission.script = lambda request: [gate, *turned(request)]
    async with http.stream("POST", "/v1/completions", json=body_of(stream=True)) as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if line == ": keep-alive":
                break
        gate.set()
        text = "\n".join([line async for line in lines])
    assert texts_of(events_of(text)) == dict(enumerate(map(expected, PROMPTS)))


async def test_token_lists_are_prompts_too_and_a_list_of_one_is_as_that_one(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    several = (await http.post("/v1/completions", json=body_of(prompt=[[5, 6], [7]]))).json()
    assert len(several["choices"]) == 2
    asked = {each.request.prompt_ids for each in admission.generations}
    assert asked == {(5, 6), (7,)}
    alone = [(await http.post("/v1/completions", json=body_of(prompt=p))).json()
             for p in ("river", ["river"], ids_of("river"), [ids_of("river")])]  # fmt: skip
    assert [answer["choices"] for answer in alone] == [alone[0]["choices"]] * 4
    assert "-" not in admission.last.request.request_id


async def test_every_choice_has_its_own_echo_logprobs_and_ids(
    http: httpx.AsyncClient,
) -> None:
    prompts = ["the mill", "river stone"]
    fields = {"echo": True, "logprobs": 2, "prompt_logprobs": 1, "return_token_ids": True, "n": 2}
    together = (await http.post("/v1/completions", json=body_of(prompt=prompts, **fields))).json()
    alone = [
        (await http.post("/v1/completions", json=body_of(prompt=prompt, **fields))).json()
        for prompt in prompts
    ]
    choices = [choice for answer in alone for choice in answer["choices"]]
    assert together["choices"] == [
        choice | {"index": index} for index, choice in enumerate(choices)
    ]
    del fields["prompt_logprobs"]
    streamed = body_of(prompt=prompts, stream=True, **fields)
    events = events_of((await http.post("/v1/completions", json=streamed)).text)
    assert texts_of(events) == {c["index"]: c["text"] for c in together["choices"]}
    mute = body_of(prompt=prompts, echo=True, max_tokens=0)
    echoed = (await http.post("/v1/completions", json=mute)).json()
    assert [choice["text"] for choice in echoed["choices"]] == prompts


async def test_a_seed_is_that_of_each_prompt_and_without_one_they_differ(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    await http.post("/v1/completions", json=body_of(seed=7))
    assert {each.request.seed for each in admission.generations} == {7}
    admission.generations.clear()
    await http.post("/v1/completions", json=body_of())
    assert len({each.request.seed for each in admission.generations}) == len(PROMPTS)


async def test_no_more_than_a_few_are_open_at_a_time(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    prompts = [f"river {number}" for number in range(40)]
    answer = (await http.post("/v1/completions", json=body_of(prompt=prompts))).json()
    assert [choice["text"] for choice in answer["choices"]] == list(map(expected, prompts))
    assert (admission.most_open, len(admission.generations)) == (4, 40)
    await all_ended(admission)


async def test_a_lane_without_room_for_the_first_few_takes_none(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.bound = 2
    with pytest.raises(openai.RateLimitError, match="lane is full at 2"):
        await client.completions.create(model="valley", prompt=PROMPTS)
    await all_ended(admission)
    assert [each.abandoned for each in admission.generations] == [1, 1]


async def test_a_full_lane_refuses_the_call_before_its_prompts_are_read(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.refusal = LaneFull("lane valley/standard is full", retry_after_s=1.5)
    with pytest.raises(openai.RateLimitError):
        await client.completions.create(model="valley", prompt=["a", ""])
    assert (len(admission.checked), admission.generations) == (1, [])


async def test_a_later_prompt_waits_until_there_is_room(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.late_refusals = [LaneFull("full", retry_after_s=0.05) for _ in range(6)]
    answer = (await http.post("/v1/completions", json=body_of())).json()
    assert [choice["text"] for choice in answer["choices"]] == list(map(expected, PROMPTS))
    assert admission.late_refusals == []
    await all_ended(admission)


async def test_a_gateway_that_leaves_ends_a_call_that_has_prompts_left(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.late_refusals = [GatewayDraining("this gateway is shutting down", retry_after_s=1)]
    answer = await http.post("/v1/completions", json=body_of())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_draining")
    await all_ended(admission)


def fails_third(request: ValidRequest) -> Script:
    if request.request_id.endswith("-2"):
        return [[Tokens(0, 0, ids_of("the mill"))], [Failed(EngineFailed("poisoned"))]]
    return hangs_after_a_word(request)


async def test_one_that_fails_ends_the_call_with_its_error_and_cancels_the_others(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = fails_third
    with pytest.raises(openai.InternalServerError, match="poisoned"):
        await client.completions.create(model="valley", prompt=PROMPTS)
    await all_ended(admission)
    settled = [each for each in admission.generations if each.settled]
    assert [each.settled[0].error.message for each in settled] == ["poisoned"]
    text = (await http.post("/v1/completions", json=body_of(stream=True))).text
    assert events_of(text)[-1]["error"]["message"] == "poisoned"
    assert "[DONE]" not in text
    await all_ended(admission)
    assert admission.open_now == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [hangs, hangs_after_a_word])
async def test_a_client_that_leaves_abandons_all(
    http: httpx.AsyncClient, admission: ScriptedAdmission, stream: bool, script: Any
) -> None:
    admission.script = script
    asking = asyncio.create_task(http.post("/v1/completions", json=body_of(stream=stream)))
    await eventually(lambda: len(admission.generations) == 4)
    asking.cancel()
    await all_ended(admission)
    assert [each.abandoned for each in admission.generations] == [1] * 4


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": []}, "prompt", "no tokens"),
    ({"prompt": [[]]}, "prompt", "no tokens"),
    ({"prompt": ["a", ""]}, "prompt[1]", "prompt[1]: the prompt has no tokens"),
    ({"prompt": [[5], []]}, "prompt[1]", "prompt[1]: the prompt has no tokens"),
    ({"prompt": ["a", [5]]}, "prompt", "a list of texts"),
    ({"prompt": ["a", 5]}, "prompt", "a list of texts"),
    ({"prompt": ["a", None]}, "prompt", "a list of texts"),
    ({"prompt": [[5], [-1]]}, "prompt", "a list of texts"),
    ({"prompt": [[5], [5.5]]}, "prompt", "a list of texts"),
    ({"prompt": [[5], [10**6]]}, "prompt[1]", "prompt[1] has token id 1000000"),
    ({"prompt": ["a", "a1" * 250]}, "prompt[1]", "prompt[1]: "),
    ({"prompt": ["a", "x" * 100_000]}, "prompt[1]", "100000 characters in your prompt"),
    ({"prompt": ["a", "b"], "max_tokens": 200}, "max_tokens", "prompt[0]: "),
    ({"prompt": ["a"] * 41}, "prompt", "prompt has 41 prompts; one call may have 40"),
    ({"temperature": 9}, "temperature", "temperature is 9"),
    ({"n": 99}, "n", "n is 99"),
    ({"background": True}, "background", "background is served for one prompt"),
]


async def test_what_is_wrong_with_one_prompt_refuses_the_call_by_its_place(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for fields, param, words in REFUSED:
        answer = await http.post("/v1/completions", json=body_of(**fields))
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param), fields
        assert words in error["message"], fields
    assert admission.generations == []


async def test_a_stream_of_several_prompts_cannot_be_resumed(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for header, value in (("Last-Event-ID", "abc:3"), ("X-Headrace-Resume", "true")):
        answer = await http.post(
            "/v1/completions", json=body_of(stream=True), headers={header: value}
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, header)
        assert "Idempotency-Key" in error["message"]
    assert admission.generations == []


async def test_under_a_key_every_prompt_has_a_name_of_its_own(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    key = {"Idempotency-Key": "k-1"}
    answers = [
        (await http.post("/v1/completions", json=body_of(), headers=key)).json() for _ in range(2)
    ]
    assert answers[0]["id"] == answers[1]["id"]
    first, second = admission.generations[: len(PROMPTS)], admission.generations[len(PROMPTS) :]
    assert {(g.request.request_id, g.request.seed) for g in first} == {
        (g.request.request_id, g.request.seed) for g in second
    }
    assert len({each.request.seed for each in first}) == len(PROMPTS)
    assert all(each.request.resumable for each in admission.generations)

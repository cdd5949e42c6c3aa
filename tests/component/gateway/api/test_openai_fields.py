"""Fields and bodies that clients of OpenAI and vLLM send, through a real Envoy."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client import REGISTRY

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.request.generation import ValidRequest
from helpers.api_scripts import SAYING, ids_of
from helpers.running_api import CARD, running_api
from helpers.running_edge import running_edge, until
from helpers.scripted_admission import ScriptedAdmission
from helpers.tiny_tokenizers import byte_level

HELLO = [{"role": "user", "content": "Hello"}]
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def ask(path: str, **fields: Any) -> dict[str, Any]:
    prompt: dict[str, Any] = {"messages": HELLO} if path == CHAT else {"prompt": "Hello"}
    return {"model": "valley"} | prompt | fields


def ignored(field: str) -> float:
    return (
        REGISTRY.get_sample_value("headrace_gateway_ignored_fields_total", {"field": field}) or 0.0
    )


def last_request(admission: ScriptedAdmission) -> ValidRequest:
    return admission.generations[-1].request


def events(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_unknown_fields_are_named_in_a_header_and_counted(
    http: httpx.AsyncClient, path: str, stream: bool
) -> None:
    before = ignored("unknown"), ignored("store")
    answer = await http.post(path, json=ask(path, stream=stream, foo=1, bär=[], store=True))
    assert answer.status_code == 200
    assert answer.headers["x-headrace-ignored"] == "foo, b%C3%A4r"
    assert (ignored("unknown"), ignored("store")) == (before[0] + 1, before[1] + 1)
    plain = await http.post(path, json=ask(path, stream=stream))
    assert "x-headrace-ignored" not in plain.headers


async def test_unknown_fields_are_named_where_the_request_is_refused_too(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.post(CHAT, json=ask(CHAT, foo=1, temperature=9))
    assert (answer.status_code, answer.headers["x-headrace-ignored"]) == (400, "foo")


async def test_a_caller_may_have_unknown_fields_refused(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    strict = {"x-headrace-strict-fields": "true"}
    for fields, name in (
        ({"foo": 1}, "foo"),
        ({"messages": [{**HELLO[0], "foo": 1}]}, "messages[0].foo"),
        ({"stream": True, "stream_options": {"foo": 1}}, "stream_options.foo"),
    ):
        answer = await http.post(CHAT, json=ask(CHAT, **fields), headers=strict)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, name)
        assert "unknown field 'foo'" in error["message"]
    assert admission.generations == []
    good = await http.post(CHAT, json=ask(CHAT, user="ada"), headers=strict)
    assert good.status_code == 200
    wrong = await http.post(CHAT, json=ask(CHAT), headers={"x-headrace-strict-fields": "1"})
    assert wrong.json()["error"]["param"] == "x-headrace-strict-fields"


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_a_body_may_be_packed_or_marked(http: httpx.AsyncClient, path: str) -> None:
    data = json.dumps(ask(path)).encode()
    packed = {"content-encoding": "gzip", "content-type": "application/json"}
    for content, headers in (
        (gzip.compress(data), packed),
        (gzip.compress(data), {}),
        (b"\xef\xbb\xbf" + data, {}),
    ):
        answer = await http.post(path, content=content, headers=headers)
        assert answer.status_code == 200, answer.text
    other = await http.post(path, content=data, headers={"content-encoding": "br"})
    assert other.status_code == 415
    assert "gzip or deflate" in other.json()["error"]["message"]
    bomb = gzip.compress(b" " * 100_000_000)
    refused = await http.post(path, content=bomb, headers=packed)
    assert refused.status_code == 400
    assert "once it is unpacked" in refused.json()["error"]["message"]
    assert (await http.post(path, content=data)).status_code == 200


async def test_a_clients_own_answer_goes_back_in_the_next_turn(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    first = await client.chat.completions.create(model="valley", messages=HELLO)  # type: ignore[arg-type]
    said = first.choices[0].message
    for dumped in (said, said.model_dump(), said.model_dump(exclude_unset=True)):
        talk: Any = [*HELLO, dumped, {"role": "user", "content": "And?"}]
        await client.chat.completions.create(model="valley", messages=talk)
        prompt = byte_level().decode(list(last_request(admission).prompt_ids))
        assert f"assistant\n{SAYING}" in prompt


async def test_a_prompt_beyond_the_context_is_refused_in_the_words_that_clients_look_for(
    client: openai.AsyncOpenAI,
) -> None:
    long: Any = [{"role": "user", "content": "a1" * 250}]
    cases = [
        (client.chat.completions.create(model="valley", messages=long), "in the messages"),
        (client.completions.create(model="valley", prompt="a1" * 250), "in your prompt"),
        (
            client.completions.create(model="valley", prompt="Hi", max_tokens=500),
            "500 in the completion",
        ),
        (
            client.completions.create(model="valley", prompt="x" * 10**6),
            "1000000 characters in your",
        ),
    ]
    for call, words in cases:
        with pytest.raises(openai.BadRequestError) as refused:
            await call
        assert refused.value.code == "context_length_exceeded"
        assert "This model's maximum context length is 200 tokens. However, " in str(refused.value)
        assert words in str(refused.value)
        assert "Please reduce" in str(refused.value)


async def test_a_model_that_is_not_there_is_refused_in_the_words_that_clients_look_for(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `gpt-4` does not exist") as refused:
        await client.completions.create(model="gpt-4", prompt="Hi")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_the_prompt_comes_as_token_ids_beside_those_of_the_output(
    http: httpx.AsyncClient, admission: ScriptedAdmission, path: str
) -> None:
    body = ask(path, return_token_ids=True, n=2)
    whole = (await http.post(path, json=body)).json()
    prompt_ids = list(last_request(admission).prompt_ids)
    told = [whole] if path == CHAT else whole["choices"]
    assert [each["prompt_token_ids"] for each in told] == [prompt_ids] * len(told)
    streamed = events((await http.post(path, json=body | {"stream": True})).text)
    holders = streamed if path == CHAT else [c for e in streamed for c in e["choices"]]
    found = [each["prompt_token_ids"] for each in holders if "prompt_token_ids" in each]
    assert found == [prompt_ids] * (1 if path == CHAT else 2)


async def test_logprobs_name_tokens_by_their_ids_where_that_is_requested(
    http: httpx.AsyncClient,
) -> None:
    names = [f"token_id:{token_id}" for token_id in [*ids_of(SAYING), 1]]
    by_id = {"return_tokens_as_token_ids": True}
    whole = (await http.post(CHAT, json=ask(CHAT, logprobs=True, top_logprobs=2, **by_id))).json()
    content = whole["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == names
    assert content[0]["top_logprobs"][0]["token"] == names[0]
    assert bytes(content[0]["bytes"]).decode() == SAYING[: len(content[0]["bytes"])]
    whole = (await http.post(COMPLETION, json=ask(COMPLETION, logprobs=0, **by_id))).json()
    assert whole["choices"][0]["logprobs"]["tokens"] == names


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_is_continued_and_echoed_from_its_last_message_on(
    http: httpx.AsyncClient, admission: ScriptedAdmission, stream: bool
) -> None:
    talk = [*HELLO, {"role": "assistant", "content": "Once upon"}]
    body = ask(CHAT, messages=talk, continue_final_message=True, echo=True, stream=stream)
    answer = await http.post(CHAT, json=body)
    prompt = byte_level().decode(list(last_request(admission).prompt_ids))
    assert prompt.endswith("assistant\nOnce upon")
    if stream:
        deltas = [c["delta"].get("content", "") for e in events(answer.text) for c in e["choices"]]
        assert "".join(deltas) == f"Once upon{SAYING}"
    else:
        assert answer.json()["choices"][0]["message"]["content"] == f"Once upon{SAYING}"


async def test_the_stop_string_is_part_of_the_text_where_that_is_requested(
    http: httpx.AsyncClient,
) -> None:
    body = ask(COMPLETION, stop=[*(f"no {i}" for i in range(100)), "mill"])
    plain = (await http.post(COMPLETION, json=body)).json()
    assert plain["choices"][0]["text"] == "the "
    kept = (await http.post(COMPLETION, json=body | {"include_stop_str_in_output": True})).json()
    assert kept["choices"][0]["text"] == "the mill"
    later = body | {"min_tokens": len(ids_of("the mill")) + 1}
    assert (await http.post(COMPLETION, json=later)).json()["choices"][0]["text"] == SAYING


async def test_special_tokens_are_part_of_the_text_where_that_is_requested(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    body = ask(COMPLETION, ignore_eos=True)
    assert (await http.post(COMPLETION, json=body)).json()["choices"][0]["text"] == SAYING
    kept = (await http.post(COMPLETION, json=body | {"skip_special_tokens": False})).json()
    assert kept["choices"][0]["text"] == f"{SAYING}<|end|>"


async def test_vllms_fields_reach_the_mesh(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    body = ask(
        COMPLETION,
        prompt=list(range(2, 150)),
        truncate_prompt_tokens=5,
        request_id="mine-1",
        cache_salt="tenant-7",
        min_tokens=2,
        bad_words=["the mill", "x"],
        allowed_token_ids=[5, 6, 7],
        priority=-3,
    )
    answer = await http.post(COMPLETION, json=body)
    assert answer.json()["id"] == "cmpl-mine-1"
    assert answer.headers["x-request-id"] == "mine-1"
    request = last_request(admission)
    assert request.prompt_ids == tuple(range(145, 150))
    assert (request.cache_salt, request.sampling.min_tokens) == ("tenant-7", 2)
    assert list(request.sampling.allowed_token_ids) == [5, 6, 7]
    runs = [list(run.token_ids) for run in request.sampling.bad_words]
    assert runs[0] == ids_of("the mill")
    assert ids_of("x") in runs


BROKEN, SILENT, PARTS = "broken", "silent", "parts"


def card(tokenizer: str) -> ModelCard:
    made = ModelCard()
    made.CopyFrom(CARD)
    made.model = made.tokenizer_digest = tokenizer
    return made


@pytest.fixture
async def odd(tmp_path: Path, admission: ScriptedAdmission) -> AsyncIterator[httpx.AsyncClient]:
    """The API over models with odd chat templates, too."""
    async with (
        running_api(admission, card(BROKEN), card(SILENT), card(PARTS)) as api,
        running_edge(tmp_path) as edge,
    ):
        edge.edge.set_gateways([("127.0.0.1", api.port)])
        await until(f"{edge.url}/v1/models")
        async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as client:
            yield client


async def test_a_chat_template_that_does_not_parse_refuses_chat_of_its_model_alone(
    odd: httpx.AsyncClient,
) -> None:
    refused = await odd.post(CHAT, json=ask(CHAT, model=BROKEN))
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "messages")
    assert "chat template cannot be read: line 3: " in error["message"]
    assert (await odd.post(COMPLETION, json=ask(COMPLETION, model=BROKEN))).status_code == 200
    assert (await odd.post(CHAT, json=ask(CHAT))).status_code == 200
    assert (await odd.get(f"/v2/models/{BROKEN}")).json().get("chat", False) is False
    native = await odd.post(f"/v2/models/{BROKEN}:generate", json={"messages": HELLO})
    assert native.status_code == 501
    assert "chat template" in native.text


async def test_a_chat_template_that_leaves_out_the_text_makes_its_model_refuse_chat(
    odd: httpx.AsyncClient,
) -> None:
    refused = await odd.post(CHAT, json=ask(CHAT, model=SILENT))
    assert refused.status_code == 400
    assert "chat template leaves out the text" in refused.json()["error"]["message"]
    assert (await odd.post(COMPLETION, json=ask(COMPLETION, model=SILENT))).status_code == 200


async def test_a_chat_template_that_reads_parts_gets_the_text_as_parts(
    odd: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    assert (await odd.post(CHAT, json=ask(CHAT, model=PARTS))).status_code == 200
    assert byte_level().decode(list(last_request(admission).prompt_ids)) == "<user>Hello"
    assert (await odd.post("/v2/models/parts:generate", json={"messages": HELLO})).is_success
    assert byte_level().decode(list(last_request(admission).prompt_ids)) == "<user>Hello"

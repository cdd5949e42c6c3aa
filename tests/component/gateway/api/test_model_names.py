"""Models of any name, in bodies and in paths, through Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import grpc
import httpx
import openai
import pytest

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.model_names import lane_id
from headrace.v1 import models_pb2, models_pb2_grpc
from helpers.running_api import CARD, RunningApi, running_api
from helpers.scripted_admission import ScriptedAdmission

HELLO = [{"role": "user", "content": "Hello"}]
NAMES = (
    *("Qwen/Qwen3-0.6B", "gpt-3.5-turbo", "Qwen3", "llama3:8b", "模型"),
    *("a:b/c:generate", "x:generate", "50%", "%2F", "a b", "a+b", "a?b#c", "é;=&,'\""),
    *("a//b", "/a", "a/", "../x", 256 * "x"),
)


def named(name: str, *aliases: str) -> ModelCard:
    card = ModelCard()
    card.CopyFrom(CARD)
    card.model = name
    card.aliases.extend(aliases)
    return card


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    """In place of the usual ones: they know a model of each name, and one with aliases."""
    aliased = named("org/primary", "small", "gpt-4o:mini", "valley")
    async with running_api(admission, aliased, *map(named, NAMES)) as running:
        yield running


async def test_a_model_of_any_name_is_requested_in_the_body_and_found_by_its_path(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for name in NAMES:
        chat = await client.chat.completions.create(model=name, messages=HELLO)  # type: ignore[arg-type]
        assert chat.model == name
        assert admission.last.request.card.model == name
        path = quote(name, safe="")
        listed = await http.get(f"/v1/models/{path}")
        assert (listed.status_code, listed.json()["id"]) == (200, name)
        found = await http.get(f"/v2/models/{path}")
        assert (found.status_code, found.json()["name"]) == (200, name)
        assert found.json()["lane_id"] == lane_id(name)


async def test_every_verb_of_the_native_api_takes_a_model_of_any_name(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for name in NAMES:
        path = f"/v2/models/{quote(name, safe='')}"
        answer = await http.post(f"{path}:generate", json={"prompt": "Hello"})
        assert (answer.status_code, answer.json()["model"]) == (200, name)
        stream = await http.post(f"{path}:streamGenerate", json={"prompt": "Hello"})
        assert stream.status_code == httpx.codes.OK
        assert admission.last.request.card.model == name
        tokens = await http.post(f"{path}:tokenize", json={"text": "the"})
        assert tokens.status_code == httpx.codes.OK
        for verb in ("embed", "rerank"):
            refused = await http.post(f"{path}:{verb}", json={"inputs": [{"text": "a"}]})
            assert refused.status_code != httpx.codes.NOT_FOUND, refused.text


async def test_slashes_and_colons_of_a_name_may_stand_in_a_path_as_they_are(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    assert (await client.models.retrieve("Qwen/Qwen3-0.6B")).id == "Qwen/Qwen3-0.6B"
    for name in ("Qwen/Qwen3-0.6B", "llama3:8b"):
        assert (await http.get(f"/v2/models/{name}")).json()["name"] == name
        answer = await http.post(f"/v2/models/{name}:generate", json={"prompt": "Hello"})
        assert answer.json()["model"] == name


async def test_a_model_answers_to_its_aliases_by_its_primary_name(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for alias in ("small", "gpt-4o:mini"):
        chat = await client.chat.completions.create(model=alias, messages=HELLO)  # type: ignore[arg-type]
        assert (chat.model, admission.last.request.card.model) == ("org/primary", "org/primary")
        adapted = await client.completions.create(model=f"{alias}:poet", prompt="Hello")
        assert (adapted.model, admission.last.request.adapter) == ("org/primary:poet", "poet")
        listed = (await client.models.retrieve(alias)).model_dump()
        assert (listed["id"], listed["root"]) == (alias, "org/primary")
        assert (await http.get(f"/v2/models/{alias}")).json()["name"] == "org/primary"
    ids = [model.id for model in (await client.models.list()).data]
    assert {"org/primary", "small", "gpt-4o:mini"} <= set(ids)
    assert len(ids) == len(set(ids))


async def test_an_alias_that_is_another_models_name_means_that_one_and_is_reported_as_taken(
    client: openai.AsyncOpenAI, api: RunningApi, admission: ScriptedAdmission
) -> None:
    await client.completions.create(model="valley", prompt="Hello")
    assert admission.last.request.card.model == "valley"
    async with grpc.aio.insecure_channel(api.address) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        found = await stub.GetModel(models_pb2.GetModelRequest(model="org/primary"))
    assert list(found.aliases) == ["small", "gpt-4o:mini"]
    assert list(found.taken_aliases) == ["valley"]


async def test_a_name_that_no_model_has_is_refused_and_nothing_breaks(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    for name in ("qwen/qwen3-0.6b", "Qwen", "llama3", "no/such", "a\nb", 300 * "y"):
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model=name, messages=HELLO)  # type: ignore[arg-type]
        assert refused.value.code == "model_not_found"
        path = quote(name, safe="")
        assert (await http.get(f"/v2/models/{path}")).status_code == httpx.codes.NOT_FOUND
    # Half of a pair of surrogates.
    body = b'{"model": "\\ud800", "prompt": "Hello"}'
    answer = await http.post(
        "/v1/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND), answer.text

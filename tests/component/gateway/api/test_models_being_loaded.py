"""A model that is configured, in the time before a worker announces it: every API says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import grpc
import httpx
import openai
import pytest
from anthropic.types import ModelInfo
from openai.types import Model

from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace.rpc.status import from_rpc_error
from headrace.v1.common_pb2 import ModelTask
from headrace.v1.embeddings_pb2 import EmbedRequest
from headrace.v1.embeddings_pb2_grpc import EmbeddingServiceStub
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from headrace_gateway.base.settings import GatewaySettings
from helpers.anthropic_models import strictly
from helpers.eventually import eventually
from helpers.running_api import CARD, RunningApi, running_api
from helpers.running_edge import RunningEdge, running_edge, until
from helpers.scripted_admission import ScriptedAdmission

HELLO = [{"role": "user", "content": "Hello"}]
VERSION = {"anthropic-version": "2023-06-01"}
CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/tokenize": {"prompt": "Hello"},
    "/v2/models/{model}:generate": {"prompt": "Hello"},
    "/v2/models/{model}:embed": {"inputs": [{"text": "Hello"}]},
}


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    limits = GatewaySettings(configured_models=("later,soon", "valley,river"))
    async with running_api(admission, limits=limits) as running:
        yield running


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("name", ["later", "soon"])
async def test_a_request_for_it_is_refused_until_later(
    http: httpx.AsyncClient, path: str, name: str
) -> None:
    refused = await http.post(path.format(model=name), json={"model": name, **CALLS[path]})
    assert refused.status_code == (529 if "/messages" in path else 503), refused.text
    assert refused.headers["retry-after"] == "2"
    assert "model later is configured and being loaded" in refused.text
    unknown = await http.post(path.format(model="no"), json={"model": "no", **CALLS[path]})
    assert unknown.status_code == 404
    assert "known models: asleep, later, soon, valley" in unknown.text


async def test_native_calls_are_unavailable(channel: grpc.aio.Channel) -> None:
    generate = GenerationServiceStub(channel).Generate(GenerateRequest(model="later", prompt="a"))
    embed = EmbeddingServiceStub(channel).Embed(EmbedRequest(model="later", inputs=[]))
    for call in (generate, embed):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert from_rpc_error(refused.value).reason == "NO_WORKER"


async def test_it_is_listed_and_not_ready(http: httpx.AsyncClient) -> None:
    async with openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none") as client:
        listed = {model.id: model async for model in client.models.list()}
        assert (await client.models.retrieve("soon")).model_dump() == listed["soon"].model_dump()
    assert list(listed)[-2:] == ["later", "soon"]
    loading = Model.model_validate(listed["soon"].model_dump(), strict=True).model_extra
    assert loading == {
        **dict.fromkeys(("max_model_len", "context_length")),
        **dict.fromkeys(("supported_parameters", "capabilities")),
        "root": "later",
        "ready": False,
    }
    valley = listed["valley"].model_extra or {}
    assert (valley["max_model_len"], valley["context_length"], valley["ready"]) == (200, 200, True)
    assert valley["capabilities"] == ["completion", "chat", "logprobs"]
    assert {"temperature", "logprobs", "min_tokens"} <= set(valley["supported_parameters"])
    assert not {"tools", "response_format"} & set(valley["supported_parameters"])


async def test_anthropics_clients_list_it_too(http: httpx.AsyncClient) -> None:
    async with anthropic.AsyncAnthropic(base_url=str(http.base_url), api_key="none") as client:
        assert [each.id async for each in client.models.list()][-2:] == ["later", "soon"]
    ready = frozenset({"ready"})
    later = await http.get("/v1/models/later", headers=VERSION)
    assert strictly(ModelInfo, later.content, ready).max_input_tokens is None
    valley = await http.get("/v1/models/valley", headers=VERSION)
    found = strictly(ModelInfo, valley.content, ready)
    assert found.capabilities is not None
    assert not found.capabilities.structured_outputs.supported
    assert (later.json()["ready"], valley.json()["ready"]) == (False, True)


async def test_it_is_served_once_it_is_announced(
    api: RunningApi, edge: RunningEdge, http: httpx.AsyncClient
) -> None:
    card = type(CARD)()
    card.CopyFrom(CARD)
    card.model = "later"
    await api.cards.put_card("later", card.SerializeToString())
    await eventually(lambda: api.catalog.base("later") == "later")
    assert api.catalog.unannounced() == {}
    await until(f"{edge.url}/v1/models/later")
    soon = await http.post("/v1/completions", json={"model": "soon", "prompt": "a"})
    assert soon.status_code == 404  # its worker's card has no such alias
    await api.cards.replace_card("later", card.SerializeToString(), None)
    await eventually(lambda: api.catalog.base("later") == "")
    gone = await http.post("/v1/completions", json={"model": "later", "prompt": "a"})
    assert gone.status_code == 404


async def test_a_call_that_names_no_model_waits_for_the_only_one(
    tmp_path: Path, admission: ScriptedAdmission
) -> None:
    limits = GatewaySettings(configured_models=("sense",))
    async with running_api(admission, limits=limits, cards=()) as api, running_edge(tmp_path) as e:
        e.edge.set_gateways([("127.0.0.1", api.port)])
        await until(f"{e.url}/v1/models")
        async with httpx.AsyncClient(base_url=e.url, trust_env=False) as http:
            refused = await http.post("/embed", json={"inputs": "a"})
            assert (refused.status_code, refused.json()["error_type"]) == (503, "Overloaded")
            assert "sense is configured" in refused.json()["error"]


async def test_a_call_that_names_no_model_waits_for_one_of_its_task(
    api: RunningApi, http: httpx.AsyncClient
) -> None:
    """Text models are there, the one that embeds is announced, and its tokenizer is not here."""
    vectors = VectorFacts(task=ModelTask.MODEL_TASK_EMBED, dimensions=4)
    card = ModelCard(model="later", tokenizer_digest="late", vectors=vectors)
    refused = await http.post("/embed", json={"inputs": "a"})
    assert (refused.status_code, "no worker has announced" in refused.text) == (503, True)
    await api.cards.put_card("later", card.SerializeToString())
    refused = await http.post("/embed", json={"inputs": "a"})
    assert (refused.status_code, "loading its tokenizer" in refused.text) == (503, True)
    assert "later" in {each["id"] for each in (await http.get("/v1/models")).json()["data"]}
    several = await http.post("/v1/completions", json={"prompt": "a"})
    assert (several.status_code, "name one" in several.text) == (400, True)
    await api.cards.replace_card("later", card.SerializeToString(), None)
    await api.cards.put_card("later", ModelCard(removed=True).SerializeToString())
    none = await http.post("/embed", json={"inputs": "a"})
    assert none.status_code in (400, 422)
    assert "there is no model for this" in none.text

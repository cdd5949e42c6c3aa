"""A gateway that requires keys, behind a real Envoy and over a real broker: what callers read."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest

from headrace.auth.check.access import Access
from headrace.auth.keys import new_key
from headrace.auth.scopes import ADMIN, EMBED, GENERATE, MODELS_READ
from headrace.auth.settings import AccessSettings
from headrace.bus import Bus
from headrace.clock import SystemClock
from headrace.errors import ModelNotFound, RequestNotFound
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.rpc.status import from_rpc_error
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from headrace.v1.models_pb2 import GetModelRequest, ListModelsRequest, TokenizeRequest
from headrace.v1.models_pb2_grpc import ModelServiceStub
from headrace.v1.requests_pb2 import GetRequestRequest
from headrace.v1.requests_pb2_grpc import RequestServiceStub
from headrace_gateway.api.http.rejection import reject_call
from helpers.access_tables import PublishedTables, write_peppers, write_secret
from helpers.eventually import eventually
from helpers.running_api import CARD, RunningApi, running_api
from helpers.running_edge import RunningEdge, running_edge, until
from helpers.scripted_admission import ScriptedAdmission

OPENAI_401 = {
    "error": {
        "message": "Incorrect API key provided.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
}
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", HELLO),
    "completions": ("/v1/completions", {"prompt": "Hello"}),
    "embeddings": ("/v1/embeddings", {"input": "Hello"}),
    "rerank": ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    "cohere": ("/v2/rerank", {"query": "a", "documents": ["b"]}),
    "score": ("/v1/score", {"text_1": "a", "text_2": "b"}),
    "tei rerank": ("/rerank", {"query": "a", "texts": ["b"]}),
    "tei embed": ("/embed", {"inputs": "Hello"}),
    "tokenize": ("/tokenize", {"prompt": "Hello"}),
    "tokenize chat": ("/tokenize", HELLO),
    "llama.cpp": ("/tokenize", {"content": "Hello"}),
    "detokenize": ("/detokenize", {"tokens": [1]}),
}
REST: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("generate", {"prompt": "Hello"}),
    "streamGenerate": ("streamGenerate", {"prompt": "Hello"}),
    "tokenize": ("tokenize", {"text": "Hello"}),
    "embed": ("embed", {"inputs": [{"text": "Hello"}]}),
    "rerank": ("rerank", {"query": "a", "documents": ["b"]}),
}
ALIASED = ModelCard()
ALIASED.CopyFrom(CARD)
ALIASED.aliases.append("gpt-4o")


@pytest.fixture
async def tables(bus: Bus) -> PublishedTables:
    tables = PublishedTables(bus)
    for tenant in ("a", "b", "default", "headrace"):
        await tables.tenant(tenant)
    await tables.stamp()
    return tables


@pytest.fixture
async def api(
    bus: Bus, tmp_path: Path, tables: PublishedTables, admission: ScriptedAdmission
) -> AsyncIterator[RunningApi]:
    settings = AccessSettings(
        auth="keys",
        peppers_file=write_peppers(tmp_path / "peppers"),
        edge_secret_file=write_secret(tmp_path / "edge-secret", "proof"),
        failed_attempts_per_minute=1000,
    )
    access = Access(settings, bus, SystemClock(), "g-1", reject=reject_call)
    async with (
        access.running(),
        running_api(admission, ALIASED, interceptor=access.interceptor) as running,
    ):
        await eventually(lambda: access.not_ready_reason() is None)
        yield running


@pytest.fixture
async def edge(tmp_path: Path, api: RunningApi) -> AsyncIterator[RunningEdge]:
    async with running_edge(tmp_path, proof="proof") as running:
        running.edge.set_gateways([("127.0.0.1", api.port)])
        await until(f"{running.url}/version")
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_a_key_that_is_not_valid_is_refused_in_the_format_of_each_api(
    http: httpx.AsyncClient, tables: PublishedTables, admission: ScriptedAdmission
) -> None:
    headers = bearer(await tables.key("a", expire_ms=1))
    for path, body in CALLS.values():
        answer = await http.post(path, json=body | {"model": "valley"}, headers=headers)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer", path
        assert answer.headers["x-should-retry"] == "false", path
        match path:
            case "/v2/rerank":
                assert answer.json() == {"message": "Incorrect API key provided."}
            case "/rerank" | "/embed":
                assert answer.json()["error"] == "Incorrect API key provided."
            case _:
                assert answer.json() == OPENAI_401, path
    for verb, body in REST.values():
        answer = await http.post(f"/v2/models/valley:{verb}", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, 16)
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/v2/models", "/v2/models/valley", "/v2/requests/known", "/v2/workers"):
        answer = await http.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, 16), path
        assert answer.headers["www-authenticate"] == "Bearer", path
    for path in ("/v1/models", "/v1/models/valley"):
        answer = await http.get(path, headers=headers)
        assert (answer.status_code, answer.json()) == (401, OPENAI_401), path
    assert not admission.generations


async def test_the_openai_client_raises_authentication_errors(edge: RunningEdge) -> None:
    for key in ("none", new_key()):
        async with openai.AsyncOpenAI(
            base_url=f"{edge.url}/v1", api_key=key, max_retries=0
        ) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                await client.models.list()
            assert refused.value.code == "invalid_api_key"
            assert key not in str(refused.value)


async def test_a_call_is_of_the_tenant_of_its_key(
    http: httpx.AsyncClient, tables: PublishedTables, admission: ScriptedAdmission
) -> None:
    key = await tables.key("a")
    for headers in (bearer(key), {"x-api-key": key}):
        answer = await http.post(
            "/v1/completions", json={"model": "valley", "prompt": "Hello"}, headers=headers
        )
        assert answer.status_code == 200
        assert admission.last.request.key.startswith("a/")
        assert not set(admission.last.request.trace_context) & {"authorization", "x-api-key"}


async def test_a_missing_scope_is_named(
    http: httpx.AsyncClient, tables: PublishedTables, admission: ScriptedAdmission
) -> None:
    body = {"model": "valley", "prompt": "Hello"}
    answer = await http.post(
        "/v1/completions", json=body, headers=bearer(await tables.key("a", scopes=[EMBED]))
    )
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "permission_denied"
    assert "scope generate" in answer.json()["error"]["message"]
    admin = bearer(await tables.key("headrace", scopes=[ADMIN]))
    assert (await http.post("/v1/completions", json=body, headers=admin)).status_code == 403
    assert (await http.get("/v2/workers", headers=admin)).status_code == 200
    of_tenant = bearer(await tables.key("a", scopes=[ADMIN]))
    assert (await http.get("/v2/workers", headers=of_tenant)).status_code == 403
    assert not admission.generations


@pytest.mark.parametrize("call", sorted(CALLS))
async def test_a_model_that_the_key_may_not_use_does_not_exist(
    http: httpx.AsyncClient, tables: PublishedTables, admission: ScriptedAdmission, call: str
) -> None:
    headers = bearer(await tables.key("a", models=["asleep"]))
    path, body = CALLS[call]
    answers = {}
    for model in ("valley", "gpt-4o", "valley:poet", "nowhere"):
        answer = await http.post(path, json=body | {"model": model}, headers=headers)
        assert answer.status_code == 404, (model, answer.text)
        answers[model] = answer.text.replace(model, "MODEL")
    assert len(set(answers.values())) == 1, answers
    assert "known models: asleep" in answers["valley"]
    assert not admission.generations


@pytest.mark.parametrize("verb", sorted(REST))
async def test_a_model_that_the_key_may_not_use_has_no_paths(
    http: httpx.AsyncClient, tables: PublishedTables, admission: ScriptedAdmission, verb: str
) -> None:
    headers = bearer(await tables.key("a", models=["asleep"]))
    path, body = REST[verb]
    texts = []
    for model in ("valley", "gpt-4o", "nowhere"):
        answer = await http.post(f"/v2/models/{model}:{path}", json=body, headers=headers)
        assert answer.status_code == 404, answer.text
        texts.append(answer.text.replace(model, "MODEL"))
    assert len(set(texts)) == 1
    assert not admission.generations


async def test_a_model_may_be_used_by_any_of_its_names(
    http: httpx.AsyncClient, tables: PublishedTables, admission: ScriptedAdmission
) -> None:
    headers = bearer(await tables.key("a", models=["gpt-4o"]))
    for model in ("gpt-4o", "valley", "valley:poet", "gpt-4o:poet"):
        body = {"model": model, "prompt": "Hello"}
        answer = await http.post("/v1/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text


async def test_a_key_may_be_for_an_adapter_alone(
    http: httpx.AsyncClient, tables: PublishedTables, admission: ScriptedAdmission
) -> None:
    headers = bearer(await tables.key("a", models=["valley:poet"]))
    statuses = {}
    for model in ("valley:poet", "valley", "gpt-4o", "valley:broken"):
        body = {"model": model, "prompt": "Hello"}
        statuses[model] = (
            await http.post("/v1/completions", json=body, headers=headers)
        ).status_code
    assert statuses == {"valley:poet": 200, "valley": 404, "gpt-4o": 404, "valley:broken": 404}
    listed = (await http.get("/v1/models", headers=headers)).json()["data"]
    assert [each["id"] for each in listed] == ["valley:poet"]


async def test_lists_have_the_models_that_the_key_may_use(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, tables: PublishedTables
) -> None:
    key = await tables.key("a", models=["asleep"], scopes=[MODELS_READ, GENERATE])
    headers, metadata = bearer(key), (("x-api-key", key),)
    listed = (await http.get("/v1/models", headers=headers)).json()["data"]
    assert [each["id"] for each in listed] == ["asleep", "asleep:poet"]
    assert [
        m["name"] for m in (await http.get("/v2/models", headers=headers)).json()["models"]
    ] == ["asleep"]
    assert (await http.get("/v1/models/asleep", headers=headers)).status_code == 200
    for path in ("/v1/models/valley", "/v2/models/valley", "/v1/models/gpt-4o"):
        assert (await http.get(path, headers=headers)).status_code == 404, path
    models = ModelServiceStub(channel)
    found = await models.ListModels(ListModelsRequest(), metadata=metadata)
    assert [model.name for model in found.models] == ["asleep"]
    for call in (
        models.GetModel(GetModelRequest(model="valley"), metadata=metadata),
        models.Tokenize(TokenizeRequest(model="valley", text="a"), metadata=metadata),
        GenerationServiceStub(channel).Generate(
            GenerateRequest(model="valley", prompt="a"), metadata=metadata
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert type(from_rpc_error(refused.value)) is ModelNotFound


async def test_a_body_without_a_model_means_the_only_one_that_the_key_may_use(
    http: httpx.AsyncClient, tables: PublishedTables
) -> None:
    one = bearer(await tables.key("a", models=["asleep"]))
    answer = await http.post("/tokenize", json={"prompt": "Hello"}, headers=one)
    assert answer.status_code == 200
    none = bearer(await tables.key("a", models=[]))
    answer = await http.post("/tokenize", json={"prompt": "Hello"}, headers=none)
    assert answer.status_code == 400
    assert "valley" not in answer.text


async def test_health_shows_models_to_those_who_may_use_them(
    http: httpx.AsyncClient, tables: PublishedTables
) -> None:
    key = await tables.key("a", models=["gpt-4o"])
    assert (await http.get("/health")).json() == {"status": "ok", "models": {}}
    assert (await http.get("/health", headers=bearer(new_key()))).json()["models"] == {}
    assert (await http.get("/health", headers=bearer(key))).json()["models"] == {"valley": "ready"}
    for path in ("/ping", "/version", "/openapi.json"):
        assert (await http.get(path)).status_code == 200


async def test_requests_of_other_tenants_do_not_exist(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, tables: PublishedTables
) -> None:
    own, foreign = await tables.key("default"), await tables.key("b")
    path = "/v2/requests/known"
    assert (await http.get(path, headers=bearer(own))).status_code == 200
    assert (await http.get(path, headers=bearer(foreign))).status_code == 404
    assert (await http.post(f"{path}:cancel", headers=bearer(foreign))).status_code == 404
    assert (await http.get(f"{path}:stream", headers=bearer(foreign))).status_code == 404
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await RequestServiceStub(channel).GetRequest(
            GetRequestRequest(request_id="known"), metadata=(("x-api-key", foreign),)
        )
    assert type(from_rpc_error(refused.value)) is RequestNotFound


async def test_a_page_calls_with_a_cookie_from_its_own_origin_only(
    http: httpx.AsyncClient, tables: PublishedTables
) -> None:
    cookie = {"cookie": f"headrace_session={await tables.session('a', role='member')}"}
    same, cross = {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "cross-site"}
    assert (await http.get("/v1/models", headers=cookie | same)).status_code == 200
    for headers in (cookie, cookie | cross, cookie | {"x-hr-same-origin": "1"}):
        assert (await http.get("/v1/models", headers=headers)).status_code == 401


async def test_keys_reach_no_log(
    http: httpx.AsyncClient,
    channel: grpc.aio.Channel,
    edge: RunningEdge,
    tables: PublishedTables,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    valid, unknown = await tables.key("a"), new_key()
    cookie = await tables.session("a", role="member")
    for key in (valid, unknown):
        headers = bearer(key) | {"cookie": f"headrace_session={cookie}"}
        await http.get("/v1/models", headers=headers)
        await http.post("/v1/chat/completions", json={"model": "no", **HELLO}, headers=headers)
        request = GenerateRequest(model="valley", prompt="a")
        with contextlib.suppress(grpc.aio.AioRpcError):
            await GenerationServiceStub(channel).Generate(request, metadata=(("x-api-key", key),))
    written = "".join(str(vars(record)) for record in caplog.records if record.name != "httpx")
    written += "".join(path.read_text() for path in edge.logs.glob("*"))
    for secret in (valid[14:], unknown[14:], cookie):
        assert secret not in written

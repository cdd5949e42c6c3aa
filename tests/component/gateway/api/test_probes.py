"""What load balancers and clients request before they send work, through a real Envoy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib import metadata

import httpx
import pytest

from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.models.catalog import Catalog
from helpers.eventually import eventually
from helpers.running_api import CARD, RunningApi, StaticCards
from helpers.tiny_tokenizers import bundle, byte_level

PROBES = ["/health", "/v1/health", "/ping", "/version", "/openapi.json"]


async def test_health_names_every_model_and_how_it_stands(http: httpx.AsyncClient) -> None:
    for path in ("/health", "/v1/health"):
        answer = await http.get(path)
        assert answer.status_code == 200
        assert answer.json() == {
            "status": "ok",
            "models": {"asleep": "no_worker", "valley": "ready"},
        }
        assert answer.headers["cache-control"] == "no-store"


async def test_health_is_503_with_the_reason_while_nothing_can_be_admitted(
    http: httpx.AsyncClient, api: RunningApi
) -> None:
    api.probes.health = replace(api.probes.health, broker_connected=False)
    answer = await http.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert answer.json()["reason"] == "out of reach of NATS"
    assert (await http.get("/ping")).status_code == 503
    assert (await http.head("/health")).status_code == 503


async def test_ping_is_200_while_the_only_model_is_loaded(
    http: httpx.AsyncClient, api: RunningApi
) -> None:
    api.probes.health = replace(api.probes.health, models={}, unannounced=frozenset({"valley"}))
    assert (await http.get("/health")).status_code == 503
    assert (await http.get("/ping")).status_code == 200


async def test_a_model_is_loading_until_its_tokenizer_is_here() -> None:
    cards = StaticCards({CARD.model: CARD.SerializeToString()}, {})
    catalog = Catalog(cards, GatewaySettings())
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(catalog.run())
        await eventually(lambda: catalog.loading() == [CARD.model])
        await cards.put_tokenizer(CARD.tokenizer_digest, bundle(byte_level()).SerializeToString())
        await eventually(lambda: catalog.loading() == [])
        assert [served.card.model for served in catalog.all()] == [CARD.model]
        following.cancel()


async def test_ping_is_empty_and_version_is_ours(http: httpx.AsyncClient) -> None:
    ping = await http.get("/ping")
    assert (ping.status_code, ping.content) == (200, b"")
    assert (await http.get("/version")).json() == {"version": metadata.version("headrace")}


async def test_the_description_of_the_paths_has_the_paths(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    described = {"/v1/chat/completions", "/v2/models/{model}:generate", *PROBES}
    assert described <= document["paths"].keys()


@pytest.mark.parametrize("path", PROBES)
async def test_probes_may_use_head(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == (await http.get(path)).headers["content-type"]

"""The Python client of a mesh with TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.client import AsyncClient, MeshUnreachable
from headrace.credentials.tls_files import TlsFiles
from headrace.errors import HeadraceError
from headrace.rpc.identity import PUBLIC
from headrace.supervisor.servers.envoy_tls import EdgeTls
from headrace.supervisor.servers.tls_store import TlsStore
from helpers.running_edge import running_edge
from helpers.standin_gateway import standin_gateway


@pytest.fixture
def store(tmp_path: Path) -> TlsStore:
    store = TlsStore(tmp_path / "tls")
    store.prepare(datetime.now(UTC), [])
    return store


@pytest.fixture
async def url(tmp_path: Path, store: TlsStore) -> AsyncIterator[str]:
    tls = EdgeTls(store.folder, [store.paths(PUBLIC)], store.paths("envoy"))
    async with (
        standin_gateway(tls=TlsFiles(store.paths("gateway"))) as (_, port),
        running_edge(tmp_path, tls=tls) as edge,
    ):
        edge.edge.set_gateways([("127.0.0.1", port)])
        yield edge.url.replace("http:", "https:")


async def _models(url: str, **trust: Path | str) -> list[str]:
    async with AsyncClient(url, **trust) as client:  # type: ignore[arg-type]
        return [model.name for model in await client.models()]


async def _answers(url: str, store: TlsStore) -> bool:
    try:
        return bool(await _models(url, ca_file=store.ca))
    except HeadraceError:
        return False


async def test_a_client_that_trusts_the_meshs_authority_is_served(
    url: str, store: TlsStore
) -> None:
    async with asyncio.timeout(20):
        while not await _answers(url, store):
            await asyncio.sleep(0.05)
    assert await _models(url, ca_file=str(store.ca), server_name="public.headrace.internal")


async def test_what_a_client_does_not_trust_is_named_with_what_to_do(
    url: str, store: TlsStore
) -> None:
    for trust, reason in (
        ({}, "is not trusted: unable to get local issuer certificate; ca_file, or HEADRACE_CA"),
        ({"ca_file": store.ca, "server_name": "x.example.com"}, "has other names than the URL's"),
        ({"ca_file": store.folder / "none"}, "the authorities to trust cannot be read"),
    ):
        with pytest.raises(MeshUnreachable, match=reason):
            await _models(url, **trust)
    with pytest.raises(MeshUnreachable, match=r"perhaps it wants https://"):
        await _models(url.replace("https:", "http:"))

"""Envoy with TLS: clients by TLS 1.3, gateways by certificates of both, all of them renewed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest

from headrace.credentials.tls_files import TlsFiles
from headrace.rpc.addresses import grpc_target
from headrace.rpc.channels import aio_channel
from headrace.rpc.identity import PUBLIC
from headrace.rpc.tls import public_security
from headrace.supervisor.servers.certificates import issue, make_authority
from headrace.supervisor.servers.envoy_tls import EdgeTls
from headrace.supervisor.servers.tls_store import GIVEN, TlsStore
from headrace.v1 import models_pb2, models_pb2_grpc
from helpers.running_edge import RunningEdge, running_edge
from helpers.standin_gateway import standin_gateway

START_S = 20.0
MODELS = "/v1/models"


@pytest.fixture
def store(tmp_path: Path) -> TlsStore:
    store = TlsStore(tmp_path / "tls")
    store.prepare(datetime.now(UTC), ["127.0.0.1"])
    return store


def edge_tls(store: TlsStore, *public: str) -> EdgeTls:
    names = public or (PUBLIC,)
    return EdgeTls(store.folder, [store.paths(name) for name in names], store.paths("envoy"))


@pytest.fixture
async def edge(tmp_path: Path, store: TlsStore) -> AsyncIterator[RunningEdge]:
    files = TlsFiles(store.paths("gateway"))
    async with (
        standin_gateway(tls=files) as (_, port),
        running_edge(tmp_path, tls=edge_tls(store)) as running,
    ):
        running.edge.set_gateways([("127.0.0.1", port)])
        running.url = running.url.replace("http:", "https:")
        await until_ok(running.url, store)
        yield running


def trusting(store: TlsStore) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(store.ca))


async def status(url: str, store: TlsStore) -> int:
    async with httpx.AsyncClient(trust_env=False, verify=trusting(store), timeout=10) as http:
        return (await http.get(f"{url}{MODELS}")).status_code


async def until_ok(url: str, store: TlsStore) -> None:
    async with asyncio.timeout(START_S):
        while await status(url, store) != 200:
            await asyncio.sleep(0.02)


async def served(url: str, store: TlsStore, **options: ssl.TLSVersion) -> ssl.SSLObject:
    """Shake hands; return what was agreed."""
    context = trusting(store)
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name, value in options.items():
        setattr(context, name, value)
    host, port = grpc_target(url).rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
    found = writer.get_extra_info("ssl_object")
    writer.close()
    assert isinstance(found, ssl.SSLObject)
    return found


async def serial(url: str, store: TlsStore) -> str:
    certificate = (await served(url, store)).getpeercert() or {}
    return str(certificate["serialNumber"])


async def test_clients_speak_tls_1_3_alone(edge: RunningEdge, store: TlsStore) -> None:
    agreed = await served(edge.url, store)
    assert (agreed.version(), agreed.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await served(edge.url, store, maximum_version=ssl.TLSVersion.TLSv1_2)


async def test_plain_http_gets_no_answer(edge: RunningEdge) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.TransportError):
            await http.get(edge.url.replace("https:", "http:") + MODELS)


async def test_grpc_comes_through_with_the_authority_of_the_mesh(
    edge: RunningEdge, store: TlsStore
) -> None:
    security = public_security(edge.url, {"ca_file": store.ca, "server_name": ""})
    async with aio_channel(grpc_target(edge.url), security=security) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.GetModel(models_pb2.GetModelRequest(model="nothing"))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


async def test_envoy_sends_nothing_to_a_process_that_is_no_gateway(
    tmp_path: Path, store: TlsStore
) -> None:
    """A worker's certificate is of the same authority, and not enough."""
    async with (
        standin_gateway(tls=TlsFiles(store.paths("worker"))) as (_, port),
        running_edge(tmp_path, tls=edge_tls(store)) as running,
    ):
        running.edge.set_gateways([("127.0.0.1", port)])
        await asyncio.sleep(1.5)
        assert await status(running.url.replace("http:", "https:"), store) == 503


async def test_no_request_fails_while_all_certificates_are_exchanged(
    edge: RunningEdge, store: TlsStore
) -> None:
    """Renewed three times, then signed by another authority, with clients of both kinds."""
    answers: list[int] = []
    stop = asyncio.Event()
    # What clients trust before the change, as a file that they have copied.
    before = trusting(store)

    async def kept_open() -> None:
        async with httpx.AsyncClient(trust_env=False, verify=before, timeout=10) as http:
            while not stop.is_set():
                answers.append((await http.get(f"{edge.url}{MODELS}")).status_code)

    async def connecting() -> None:
        while not stop.is_set():
            answers.append(await status(edge.url, store))

    async def until_other_than(old: str) -> str:
        async with asyncio.timeout(START_S):
            while (now := await serial(edge.url, store)) == old:
                await asyncio.sleep(0.05)
        return now

    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(kept_open()), group.create_task(connecting())]
        seen = await serial(edge.url, store)
        for _ in range(3):
            store.renew(datetime.now(UTC), all_roles=True)
            seen = await until_other_than(seen)
        store.add_authority(datetime.now(UTC))
        await asyncio.sleep(2)
        store.begin_authority(datetime.now(UTC))
        seen = await until_other_than(seen)
        await asyncio.sleep(1)
        store.forget_authorities()
        await asyncio.sleep(2)
        stop.set()
        await asyncio.gather(*loads)
    assert set(answers) == {200}
    assert len(answers) > 100


async def test_a_given_certificate_is_shown_to_all_but_those_who_ask_for_the_meshs(
    tmp_path: Path, store: TlsStore
) -> None:
    now = datetime.now(UTC)
    authority = make_authority(now)
    given = issue(authority, "site", "given", now=now, hosts=["llm.example.com"])
    cert, key = tmp_path / "given.crt", tmp_path / "given.key"
    cert.write_bytes(given.certificate)
    key.touch(mode=0o600)
    key.write_bytes(given.key)
    store.take(cert, key)
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    async with running_edge(tmp_path, tls=edge_tls(store, GIVEN, PUBLIC)) as running:
        port = int(running.url.rpartition(":")[2])
        for name, trusted in (
            ("127.0.0.1", context),
            ("llm.example.com", context),
            ("public.headrace.internal", trusting(store)),
        ):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusted, server_hostname=name
            )
            writer.close()

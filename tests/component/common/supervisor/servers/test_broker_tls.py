"""nats-server with TLS as a mesh starts it, and certificates that are exchanged under load."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.bus import BusUnavailable
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.credentials.tls_files import TlsFiles
from headrace.supervisor.child import Child
from headrace.supervisor.servers.nats import Broker
from headrace.supervisor.servers.tls_store import OPERATOR, TlsStore

START_S = 20.0


@pytest.fixture
def store(tmp_path: Path) -> TlsStore:
    store = TlsStore(tmp_path / "tls")
    store.prepare(datetime.now(UTC), [])
    return store


@pytest.fixture
async def broker(tmp_path: Path, store: TlsStore) -> AsyncIterator[tuple[str, int]]:
    """URL and process id."""
    broker = Broker(tmp_path / "nats", tls=store.paths("nats"))
    broker.prepare()
    log = tmp_path / "nats.log"
    child = await Child.start(broker.argv(), log=log)
    try:
        async with asyncio.timeout(START_S):
            while await broker.read_ports(child.pid) is None:
                assert child.running, log.read_text()
                await asyncio.sleep(0.02)
        yield broker.url, child.pid
    finally:
        await child.stop(deadline_s=5)


async def _connected(url: str, tls: TlsFiles | None) -> JetStreamBus:
    return await connect(url, name="test", wait_s=2.0, tls=tls)


async def _certificate(url: str, tls: TlsFiles) -> bytes:
    """Return what the broker shows to a new connection."""
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    context = ssl.create_default_context(cadata=tls.current.ca.decode())
    context.load_cert_chain(tls.paths.cert, tls.paths.key)
    await writer.start_tls(context, server_hostname=host)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_the_broker_wants_a_certificate_of_the_mesh(broker: tuple[str, int]) -> None:
    with pytest.raises(BusUnavailable, match="its certificate is not trusted"):
        await _connected(broker[0], None)


async def test_no_message_is_lost_while_certificates_are_exchanged(
    broker: tuple[str, int], store: TlsStore
) -> None:
    """Renewed three times, then signed by another authority that alone is trusted at the end."""
    url, pid = broker
    tls = TlsFiles(store.paths(OPERATOR))
    kept, stored, stop = await _connected(url, tls), 0, asyncio.Event()

    async def load() -> None:
        nonlocal stored
        while not stop.is_set():
            await kept.put_result(f"r{stored}", b"kept")
            fresh = await _connected(url, tls)
            assert await fresh.get_result(f"r{stored}") == b"kept"
            await fresh.close()
            stored += 1

    async def reload(seen: bytes) -> bytes:
        os.kill(pid, signal.SIGHUP)
        async with asyncio.timeout(START_S):
            while (now := await _certificate(url, tls)) == seen:
                await asyncio.sleep(0.02)
        return now

    async with asyncio.TaskGroup() as group:
        loading = group.create_task(load())
        seen = await _certificate(url, tls)
        for _ in range(3):
            store.renew(datetime.now(UTC), all_roles=True)
            seen = await reload(seen)
        store.add_authority(datetime.now(UTC))
        os.kill(pid, signal.SIGHUP)
        await asyncio.sleep(1)
        store.begin_authority(datetime.now(UTC))
        seen = await reload(seen)
        store.forget_authorities()
        os.kill(pid, signal.SIGHUP)
        await asyncio.sleep(1)
        before = stored
        while stored < before + 5:
            await asyncio.sleep(0.02)
        stop.set()
        await loading
    assert kept.reconnects == 0
    await kept.close()

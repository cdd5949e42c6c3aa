"""The bus over NATS with JetStream. Nothing outside of this package knows that it is NATS.

docs/adr/0002-lanes-on-jetstream.md has the observations of nats-server 2.15 that it relies on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import KeyValueConfig, ObjectStoreConfig
from nats.js.kv import KeyValue

from headrace.bus import BusUnavailable
from headrace.bus.jetstream.access import BrokerAccess
from headrace.bus.jetstream.connect_errors import ConnectErrors
from headrace.bus.jetstream.connection import CoreMessages
from headrace.bus.jetstream.lanes import JetStreamLane, StoredLanes
from headrace.bus.jetstream.leases import KeyLeases, StoredJournal
from headrace.bus.jetstream.objects import StoredObjects
from headrace.bus.jetstream.records import (
    StoredCards,
    StoredConversations,
    StoredResponses,
    StoredResults,
)
from headrace.bus.jetstream.snapshots import StreamSnapshots
from headrace.bus.jetstream.store_probe import JetStreamProbe
from headrace.bus.jetstream.stores import buckets, streams
from headrace.bus.jetstream.tables import StoredTables
from headrace.bus.jetstream.usage import StoredUsageStream
from headrace.bus.stores import FILE_BUCKET, TOKENIZER_BUCKET
from headrace.bus.urls import is_valid_url, redact_url
from headrace.cancellation import recheck_cancelled
from headrace.credentials.tls_files import TlsFiles
from headrace.telemetry.condition_log import ConditionLog

__all__ = ["JetStreamBus", "JetStreamLane", "connect"]

log = logging.getLogger(__name__)

_CANCEL_AGAIN_S = 0.05
PING_S = 1.0
"""A server that has not answered two pings is given up, 3 s after its last answer."""


class JetStreamBus(
    CoreMessages,
    StoredLanes,
    StoredCards,
    KeyLeases,
    StoredResponses,
    StoredConversations,
    StoredResults,
    StoredTables,
    StoredObjects,
    JetStreamProbe,
    StreamSnapshots,
    StoredUsageStream,
    StoredJournal,
):
    """Implements `headrace.bus.Bus`. `connect` makes it; it reconnects for as long as it takes."""

    _keeping: asyncio.Task[None] | None = None

    async def close(self) -> None:
        self.closing = True
        for task in self._answers:
            task.cancel()
        if self._keeping is not None:
            self._keeping.cancel()
        await self._client.close()

    def keep_stores(self, replicas: int, errors: ConnectErrors) -> None:
        """Create what is missing after every reconnect: the broker may have lost its store."""

        async def keep() -> None:
            known = self.reconnects
            while True:
                await self.reconnected_since(known)
                known = self.reconnects
                await _ensure_stores(self, replicas, errors)
                recheck_cancelled()

        self._keeping = asyncio.create_task(keep())

    async def ensure_stores(self, replicas: int) -> None:
        """Create the streams and buckets that are missing. Many processes may call it at once."""
        for config in streams(replicas):
            try:
                await self._js.add_stream(config)
            except nats.js.errors.BadRequestError:  # another version of Headrace has created it
                await self._js.update_stream(config)
        for bucket in buckets(replicas):
            self._kv[bucket.bucket] = await self._bucket(bucket)
        for name in (TOKENIZER_BUCKET, FILE_BUCKET):
            objects = ObjectStoreConfig(replicas=replicas)
            await self._js.create_object_store(name, config=objects)

    async def _bucket(self, config: KeyValueConfig) -> KeyValue:
        try:
            return await self._js.create_key_value(config)
        except nats.js.errors.BadRequestError:
            return await self._js.key_value(config.bucket)


async def connect(
    url: str,
    *,
    name: str,
    wait_s: float = 30.0,
    replicas: int | None = 1,
    tls: TlsFiles | None = None,
    credentials_file: Path | None = None,
) -> JetStreamBus:
    """Connect, and create missing streams and buckets, each on `replicas` servers.

    They are created again after a reconnect to a broker that has lost them.

    Args:
        url: of one server, or comma-separated of several servers of a cluster.
        replicas: None creates nothing; leases then cannot be used.
        tls: what this process proves itself with; the broker must be signed by its authority.
        credentials_file: one line `user:password`. Both are read again at every reconnect.

    Raises:
        BusUnavailable: there is no connection within `wait_s`.
    """
    if not is_valid_url(url):
        raise BusUnavailable(f"{redact_url(url)} is not a URL of NATS; write nats://host:4222")
    client = Client()
    bus, errors = JetStreamBus(client), ConnectErrors()
    connection = _ConnectionLog(client, bus, url, errors)
    access = BrokerAccess(url, tls=tls, credentials_file=credentials_file)

    async def begin() -> None:
        await connection.open(name, access)
        await bus.watch_broker()
        if replicas is not None:
            await _ensure_stores(bus, replicas, errors)
            bus.keep_stores(replicas, errors)

    try:
        if await _ends_within(wait_s, begin()):
            return bus
    except (OSError, nats.errors.Error) as error:
        errors.add(error)
    bus.closing = True
    with contextlib.suppress(OSError, nats.errors.Error, AssertionError):
        await client.close()
    raise BusUnavailable(f"no NATS within {wait_s:g} s at {redact_url(url)}: {errors}")


class _ConnectionLog:
    """Opens the client's connection and logs its changes."""

    def __init__(self, client: Client, bus: JetStreamBus, url: str, errors: ConnectErrors) -> None:
        self._client, self._bus, self._url, self._errors = client, bus, url, errors
        self._was_connected = False
        self._unreachable = ConditionLog(log, active="bus.unreached", cleared="bus.reached")

    async def open(self, name: str, access: BrokerAccess) -> None:
        """Return once there is a connection, however long that takes."""
        # Why not by the client: it would shuffle at each reconnect, and might return to the server
        # that has just stopped answering.
        servers = self._url.split(",")
        random.shuffle(servers)
        options: dict[str, Any] = {
            "name": name,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
            "error_cb": self._on_error,
            "dont_randomize": True,
            "ping_interval": PING_S,
            "max_outstanding_pings": 2,
            **access.options(),
        }
        await self._client.connect(servers, **options)
        self._was_connected = True
        self._unreachable.cleared(time.monotonic(), server=self._bus.server)

    async def _on_disconnect(self) -> None:
        if not self._bus.closing:
            log.warning("bus.disconnected")

    async def _on_reconnect(self) -> None:
        log.warning("bus.reconnected", extra={"server": self._bus.server})
        self._bus.count_reconnect()

    async def _on_error(self, error: Exception) -> None:
        self._errors.add(error)
        if not self._client.is_connected and not self._was_connected:
            servers, why = redact_url(self._url), str(self._errors)
            self._unreachable.active(time.monotonic(), servers=servers, why=why)
        log.debug("bus.error", extra={"error": repr(error)})


async def _ends_within(wait_s: float, work: Coroutine[Any, Any, None]) -> bool:
    """Return whether the work ended in time; raise what it raises.

    Why not asyncio.timeout: the client retries for ever, and loses a cancellation that comes in
    the same turn of the loop in which an attempt fails. So it is cancelled until it ends.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=wait_s)
        if task.done():
            task.result()
            return True
        return False
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)


async def _ensure_stores(bus: JetStreamBus, replicas: int, errors: ConnectErrors) -> None:
    # JetStream starts a moment after the port is open.
    waiting = ConditionLog(log, active="bus.waiting_for_jetstream", cleared="bus.jetstream_ready")
    while True:
        try:
            await bus.ensure_stores(replicas)
            waiting.cleared(time.monotonic())
            return
        except nats.errors.Error as error:
            errors.add(error)
            waiting.active(time.monotonic(), why=str(errors))
            await asyncio.sleep(0.2)

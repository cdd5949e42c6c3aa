"""The bus over NATS. Nothing outside of this package knows that it is NATS.

Facts it builds on, all observed on nats-server 2.15: docs/adr/0002-lanes-on-jetstream.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import KeyValueConfig, ObjectStoreConfig
from nats.js.kv import KeyValue

from headrace.bus import BusUnavailable
from headrace.bus.jetstream.connect_errors import ConnectErrors, is_valid_url, redact_url
from headrace.bus.jetstream.connection import CoreMessages
from headrace.bus.jetstream.lanes import JetStreamLane, StoredLanes
from headrace.bus.jetstream.leases import KeyLeases
from headrace.bus.jetstream.records import StoredCards, StoredResults
from headrace.bus.jetstream.store_probe import JetStreamProbe
from headrace.bus.jetstream.stores import TOKENIZER_BUCKET, buckets, streams
from headrace.telemetry.condition_log import ConditionLog

__all__ = ["JetStreamBus", "JetStreamLane", "connect", "redact_url"]

log = logging.getLogger(__name__)

_CANCEL_AGAIN_S = 0.05
PING_S = 1.0
"""A server that has not answered two pings is taken for gone, 3 s after it fell silent."""


class JetStreamBus(
    CoreMessages, StoredLanes, StoredCards, KeyLeases, StoredResults, JetStreamProbe
):
    """Implements `headrace.bus.Bus`. Made by `connect`; reconnects for as long as it takes."""

    async def close(self) -> None:
        self.closing = True
        for task in self._answers:
            task.cancel()
        await self._client.close()

    async def ensure_stores(self, replicas: int) -> None:
        """Make streams and buckets that are not there. Safe from many processes at once."""
        for config in streams(replicas):
            try:
                await self._js.add_stream(config)
            except nats.js.errors.BadRequestError:  # there, made by another version of us
                await self._js.update_stream(config)
        for bucket in buckets(replicas):
            self._kv[bucket.bucket] = await self._bucket(bucket)
        await self._js.create_object_store(
            TOKENIZER_BUCKET, config=ObjectStoreConfig(replicas=replicas)
        )

    async def _bucket(self, config: KeyValueConfig) -> KeyValue:
        try:
            return await self._js.create_key_value(config)
        except nats.js.errors.BadRequestError:
            return await self._js.key_value(config.bucket)


async def connect(
    url: str, *, name: str, wait_s: float = 30.0, replicas: int | None = 1
) -> JetStreamBus:
    """Connect and make sure that streams and buckets are there, each on `replicas` servers.

    Args:
        url: of several servers of a cluster, with commas between.
        replicas: None leaves streams and buckets as they are; leases are then out of reach.

    Raises:
        BusUnavailable: no answer within `wait_s`.
    """
    if not is_valid_url(url):
        raise BusUnavailable(f"{redact_url(url)} is no URL of NATS; write nats://host:4222")
    client = Client()
    bus, reasons = JetStreamBus(client), ConnectErrors()
    connecting = _Connecting(client, bus, url, reasons)

    async def begin() -> None:
        await connecting.begin(name)
        await bus.watch_broker()
        if replicas is not None:
            await _until_stores(bus, replicas, reasons)

    try:
        if await _ends_within(wait_s, begin()):
            return bus
    except (OSError, nats.errors.Error) as error:
        reasons.note(error)
    bus.closing = True
    with contextlib.suppress(OSError, nats.errors.Error, AssertionError):
        await client.close()
    raise BusUnavailable(f"no NATS within {wait_s:g} s at {redact_url(url)}: {reasons}")


class _Connecting:
    """The client's connection as it comes and goes, in the log."""

    def __init__(self, client: Client, bus: JetStreamBus, url: str, reasons: ConnectErrors) -> None:
        self._client, self._bus, self._url, self._reasons = client, bus, url, reasons
        self._has_begun = False
        self._unreached = ConditionLog(log, began="bus.unreached", over="bus.reached")

    async def begin(self, name: str) -> None:
        """Returns once there is a connection, however long that takes."""
        # Why by ourselves, and not by the client: it would draw again at each reconnect, and might
        # come back to the server that has just fallen silent.
        servers = self._url.split(",")
        random.shuffle(servers)
        options: dict[str, Any] = {
            "name": name,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
            "error_cb": self._swallow,
            "dont_randomize": True,
            "ping_interval": PING_S,
            "max_outstanding_pings": 2,
        }
        await self._client.connect(servers, **options)
        self._has_begun = True
        self._unreached.end(time.monotonic(), server=self._bus.server)

    async def _disconnected(self) -> None:
        if not self._bus.closing:
            log.warning("bus.disconnected")

    async def _reconnected(self) -> None:
        log.warning("bus.reconnected", extra={"server": self._bus.server})

    async def _swallow(self, error: Exception) -> None:
        self._reasons.note(error)
        if not self._client.is_connected and not self._has_begun:
            shown_url, why = redact_url(self._url), str(self._reasons)
            self._unreached.again(time.monotonic(), servers=shown_url, why=why)
        log.debug("bus.error", extra={"error": repr(error)})


async def _ends_within(wait_s: float, work: Coroutine[Any, Any, None]) -> bool:
    """Whether it has come to its end; what it raises is raised.

    Why not asyncio.timeout: the client tries for ever, and loses a cancellation that comes in the
    turn of the loop in which one of its attempts fails. So it is cancelled until it ends.
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


async def _until_stores(bus: JetStreamBus, replicas: int, reasons: ConnectErrors) -> None:
    # JetStream comes up a moment after the port does.
    waiting = ConditionLog(log, began="bus.waiting_for_jetstream", over="bus.jetstream_ready")
    while True:
        try:
            await bus.ensure_stores(replicas)
            waiting.end(time.monotonic())
            return
        except nats.errors.Error as error:
            reasons.note(error)
            waiting.again(time.monotonic(), why=str(reasons))
            await asyncio.sleep(0.2)

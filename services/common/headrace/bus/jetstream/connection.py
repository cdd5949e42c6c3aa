"""The connection to NATS that all parts of the bus share, and core messages over it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nats.errors
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue

from headrace.bus import BusUnavailable, NoReply, NoResponders, OnMessage, RequestHandler, subjects
from headrace.cancellation import rechecking_cancelled
from headrace.internal.v1.reports_pb2 import BrokerReport

log = logging.getLogger(__name__)

STORE_TIMEOUT_S = 5.0
STREAM_INFO_S = 2.0
_PING_TIMEOUT_S = 0.5
FAULT_KEPT_S = 5.0
"""How long a report of the broker's supervisor is valid; one comes each second."""


@contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Raise errors of the NATS client as BusUnavailable, with what was being done."""
    try:
        yield
    except nats.errors.Error as error:
        raise BusUnavailable(f"{what}: {error or 'no answer'}") from error


def is_for(subject: str, message: Msg) -> bool:
    """Return whether the message was published to the subject, or to one that it stands for.

    Who may read a stream can have the broker deliver its messages to any subject, so what a user
    must not publish there comes under the subject that it was published to.
    """
    parts, expected = message.subject.split("."), subject.split(".")
    if expected[-1] == ">":
        parts, expected = parts[: len(expected) - 1], expected[:-1]
    if len(parts) == len(expected) and all(
        want in ("*", part) for part, want in zip(parts, expected, strict=True)
    ):
        return True
    log.warning("bus.foreign_message", extra={"subject": subject, "of": message.subject})
    return False


class OpenSubscription:
    def __init__(self, inner: NatsSubscription) -> None:
        self._inner = inner

    async def close(self) -> None:
        if not self._inner._conn.is_closed:  # nats-py raises for a closed connection
            await self._inner.unsubscribe()


class Connected:
    """Base of all parts of the bus."""

    def __init__(self, client: Client) -> None:
        self.closing = False
        self._client = client
        self._js = client.jetstream(timeout=STORE_TIMEOUT_S)
        self._kv: dict[str, KeyValue] = {}
        self._answers: set[asyncio.Task[None]] = set()
        self._fault, self._fault_until_s = "", float("-inf")
        self.reconnects = 0
        """How often the connection was lost and made again."""
        self._reconnected = asyncio.Event()

    @property
    def jetstream(self) -> JetStreamContext:
        return self._js

    @property
    def client(self) -> Client:
        return self._client

    @property
    def closed(self) -> bool:
        return self._client.is_closed

    def count_reconnect(self) -> None:
        self.reconnects += 1
        self._reconnected.set()
        self._reconnected = asyncio.Event()

    async def reconnected_since(self, reconnects: int) -> None:
        """Return once there were more reconnects than these."""
        while self.reconnects == reconnects:
            await self._reconnected.wait()

    @property
    def server(self) -> str:
        """Host and port of the connected server; empty while there is none."""
        url = self._client.connected_url
        return "" if url is None else url.netloc.rpartition("@")[2]

    async def reconnect_if_silent(self) -> None:
        """Connect to another server of the cluster if this one does not answer a ping."""
        if len(self._client.servers) < 2:
            return
        try:
            await self._client.flush(timeout=_PING_TIMEOUT_S)  # type: ignore[arg-type]  # any number
        except (TimeoutError, nats.errors.Error):
            log.warning("bus.server_silent", extra={"server": self.server})
            await self._client.force_reconnect()

    async def _store(self, subject: str, payload: bytes, *, ttl_s: float | None = None) -> None:
        with unavailable(subject):
            await self._js.publish(subject, payload, msg_ttl=ttl_s)


class CoreMessages(Connected):
    """Implements `headrace.bus.Messages`."""

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    @property
    def fault(self) -> str:
        return self._fault if time.monotonic() < self._fault_until_s else ""

    async def watch_broker(self) -> None:
        """Keep `fault` as the broker's supervisor reports it."""

        def on_report(payload: bytes) -> None:
            try:
                self._fault = BrokerReport.FromString(payload).fault
            except DecodeError:
                log.warning("bus.unreadable_report", extra={"subject": subjects.BROKER_REPORTS})
            self._fault_until_s = time.monotonic() + FAULT_KEPT_S

        await self.subscribe(subjects.BROKER_REPORTS, on_report)

    async def publish(self, subject: str, payload: bytes) -> None:
        # Why: nats-py would buffer while disconnected and send stale reports later.
        if self._client.is_connected:
            await self._client.publish(subject, payload)

    @rechecking_cancelled
    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if not self._client.is_connected:
            raise BusUnavailable(f"no connection to NATS; nothing was sent to {subject}")
        try:
            reply = await self._client.request(subject, payload, timeout=timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"no process serves {subject}") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise NoReply(f"no reply from {subject} in {timeout_s:g} s") from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"{subject}: {error}") from error
        return reply.data

    async def subscribe(self, subject: str, on_message: OnMessage) -> OpenSubscription:
        async def receive(message: Msg) -> None:
            if is_for(subject, message):
                on_message(message.data)

        return OpenSubscription(await self._client.subscribe(subject, cb=receive))

    async def serve(self, subject: str, answer: RequestHandler) -> OpenSubscription:
        async def answer_one(message: Msg) -> None:
            try:
                reply = await answer(message.data)
                # Why: the sender may not be allowed to publish what it names as its reply subject.
                if message.reply.startswith(subjects.INBOXES):
                    await message.respond(reply)
            except Exception:  # top of a task; the caller repeats its request
                log.exception("bus.answer_failed", extra={"subject": subject})

        async def receive(message: Msg) -> None:
            if not is_for(subject, message):
                return
            task = asyncio.create_task(answer_one(message))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

        return OpenSubscription(await self._client.subscribe(subject, cb=receive))


async def stream_info(bus: Connected, stream: str) -> dict[str, Any]:
    """Return what the broker says of a stream.

    Raises:
        BusUnavailable: the broker is away, or there is no such stream.
    """
    # Why not nats-py's: it leaves out when the first message was stored.
    with unavailable(f"stream {stream}"):
        answer = await bus.client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=STREAM_INFO_S)
    info: dict[str, Any] = json.loads(answer.data)
    if error := info.get("error"):
        raise BusUnavailable(f"stream {stream}: {error.get('description', error)}")
    return info

"""One connection to NATS, shared by the parts of the bus, and core messages over it."""

from __future__ import annotations

import asyncio
import logging
import time

import nats.errors
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js.kv import KeyValue

from headrace.bus import Answer, BusUnavailable, NobodyAnswered, NobodyListens, OnMessage, subjects
from headrace.cancellation import rechecking_cancelled
from headrace.internal.v1.reports_pb2 import BrokerReport

log = logging.getLogger(__name__)

STORE_TIMEOUT_S = 5.0
_PING_ANSWER_S = 0.5
FAULT_KEPT_S = 5.0
"""A report of the broker's supervisor counts for so long; it comes once a second."""


class OpenSubscription:
    def __init__(self, inner: NatsSubscription) -> None:
        self._inner = inner

    async def close(self) -> None:
        if not self._inner._conn.is_closed:  # nats-py raises for a closed connection
            await self._inner.unsubscribe()


class Connected:
    """What every part of the bus works with."""

    def __init__(self, client: Client) -> None:
        self.closing = False
        self._client = client
        self._js = client.jetstream(timeout=STORE_TIMEOUT_S)
        self._kv: dict[str, KeyValue] = {}
        self._answers: set[asyncio.Task[None]] = set()
        self._fault, self._fault_until_s = "", float("-inf")

    @property
    def server(self) -> str:
        """Host and port of the server that we are connected to; empty while there is none."""
        url = self._client.connected_url
        return "" if url is None else url.netloc.rpartition("@")[2]

    async def leave_silent_server(self) -> None:
        """Go to another server of the cluster where this one does not even answer a ping."""
        if len(self._client.servers) < 2:
            return
        try:
            await self._client.flush(timeout=_PING_ANSWER_S)  # type: ignore[arg-type]  # any number
        except (TimeoutError, nats.errors.Error):
            log.warning("bus.server_silent", extra={"server": self.server})
            await self._client.force_reconnect()

    async def _store(self, subject: str, payload: bytes, *, ttl_s: float | None = None) -> None:
        try:
            await self._js.publish(subject, payload, msg_ttl=ttl_s)
        except nats.errors.Error as error:
            raise BusUnavailable(f"{subject}: {error or 'no answer'}") from error


class CoreMessages(Connected):
    """Implements `headrace.bus.Messages`."""

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    @property
    def fault(self) -> str:
        return self._fault if time.monotonic() < self._fault_until_s else ""

    async def watch_broker(self) -> None:
        """Take note from now on of what the broker's supervisor reports."""

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
            raise BusUnavailable(f"no connection to NATS; {subject} was not asked")
        try:
            answer = await self._client.request(subject, payload, timeout=timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NobodyListens(f"nobody serves {subject}") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise NobodyAnswered(f"no answer from {subject} in {timeout_s:g} s") from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"{subject}: {error}") from error
        return answer.data

    async def subscribe(self, subject: str, on_message: OnMessage) -> OpenSubscription:
        async def receive(message: Msg) -> None:
            on_message(message.data)

        return OpenSubscription(await self._client.subscribe(subject, cb=receive))

    async def serve(self, subject: str, answer: Answer) -> OpenSubscription:
        async def answer_one(message: Msg) -> None:
            try:
                await message.respond(await answer(message.data))
            except Exception:  # top of a task; the asker repeats
                log.exception("bus.answer_failed", extra={"subject": subject})

        async def receive(message: Msg) -> None:
            task = asyncio.create_task(answer_one(message))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

        return OpenSubscription(await self._client.subscribe(subject, cb=receive))

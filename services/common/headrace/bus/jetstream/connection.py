"""One connection to NATS, shared by the parts of the bus, and core messages over it."""

from __future__ import annotations

import asyncio
import logging

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js.kv import KeyValue

from headrace.bus import Answer, BusUnavailable, NobodyAnswered, NobodyListens, OnMessage
from headrace.heeding import heeding

log = logging.getLogger(__name__)

STORE_TIMEOUT_S = 5.0


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

    async def publish(self, subject: str, payload: bytes) -> None:
        # Why: nats-py would buffer while disconnected and send stale reports later.
        if self._client.is_connected:
            await self._client.publish(subject, payload)

    @heeding
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

"""Lanes: one work-queue stream, a durable pull consumer per lane. Why so: ADR 2."""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from headrace.bus import BusUnavailable, LaneAtBound, Pulled, subjects
from headrace.bus.jetstream.connection import Connected
from headrace.bus.jetstream.stores import ACK_WAIT_S, LANE_BOUND, REQUEST_STREAM
from headrace.heeding import heeding

_LANE_AT_BOUND = 10077


class StoredLanes(Connected):
    """Implements `headrace.bus.Lanes`."""

    @heeding
    async def submit(self, model: str, priority: str, payload: bytes, *, message_id: str) -> int:
        headers = {"Nats-Msg-Id": message_id}
        try:
            stored = await self._js.publish(
                subjects.lane(model, priority), payload, headers=headers
            )
        except nats.js.errors.APIError as error:
            if error.err_code == _LANE_AT_BOUND:
                raise LaneAtBound(f"lane {model}/{priority} holds {LANE_BOUND} requests") from error
            raise BusUnavailable(f"request {message_id} was not stored: {error}") from error
        except nats.errors.Error as error:
            raise BusUnavailable(
                f"request {message_id} may not be stored: {error or 'no answer'}"
            ) from error
        return stored.seq

    @heeding
    async def take_over(self, model: str, priority: str) -> JetStreamLane:
        name = f"{model}-{priority}"
        subject = subjects.lane(model, priority)
        # Why: deleting the consumer forgets what the last leader had pulled, so that the
        # stream, which keeps a message until it is acknowledged, gives it out again at once.
        try:
            await self._js.delete_consumer(REQUEST_STREAM, name)
        except nats.js.errors.NotFoundError:
            pass
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane {name}: {error or 'no answer'}") from error
        config = ConsumerConfig(
            durable_name=name,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=LANE_BOUND,
        )
        try:
            await self._js.add_consumer(REQUEST_STREAM, config)
            pull = await self._js.pull_subscribe_bind(consumer=name, stream=REQUEST_STREAM)
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane {name}: {error or 'no answer'}") from error
        return JetStreamLane(self._client, pull)

    @heeding
    async def bury(self, model: str, letter: bytes) -> None:
        await self._store(subjects.dead_letter(model), letter)


class JetStreamLane:
    """One lane's pull consumer."""

    def __init__(self, client: Client, pull: JetStreamContext.PullSubscription) -> None:
        self._client = client
        self._pull = pull

    @heeding
    async def pull(self, *, max_messages: int, timeout_s: float) -> list[Pulled]:
        try:
            found = await self._pull.fetch(max_messages, timeout=timeout_s)
        except (TimeoutError, nats.errors.TimeoutError):
            return []
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane: {error or 'no answer'}") from error
        return [Pulled(m.data, m.metadata.sequence.stream, m.reply) for m in found]

    @heeding
    async def acknowledge(self, acknowledgement: str) -> None:
        if not self._client.is_connected:
            raise BusUnavailable("no connection to NATS; not acknowledged")
        try:
            await self._client.request(acknowledgement, b"+ACK", timeout=2.0)
        except nats.errors.Error as error:
            raise BusUnavailable(f"not acknowledged: {error or 'no answer'}") from error

    async def close(self) -> None:
        if not self._client.is_closed:
            await self._pull.unsubscribe()

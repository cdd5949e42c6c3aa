"""Lanes: one work-queue stream, a durable pull consumer for each lane. ADR 2 has the reasons."""

from __future__ import annotations

import contextlib
import time

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from headrace.bus import (
    BusUnavailable,
    LaneBroken,
    LaneLimitReached,
    PulledMessage,
    StoredDeadLetter,
    subjects,
)
from headrace.bus.jetstream.connection import Connected, unavailable
from headrace.bus.jetstream.stores import ACK_WAIT_S, LANE_BOUND
from headrace.bus.stores import DEAD_STREAM, REQUEST_STREAM
from headrace.cancellation import rechecking_cancelled
from headrace.model_names import lane_id

_LANE_AT_BOUND = 10077
SUBMIT_S = 1.5
"""Longest wait for one request to be stored; then it is sent again with the same id, and to another
server if this one is silent."""
DELETE_TIMEOUT_S = 1.0
ELECTION_S = 20.0
"""A consumer that is created while a server of a cluster is down is there once its replicas have
elected a leader, in 4 to 9 s; to repeat the call meanwhile would start again. A single server
answers in milliseconds."""


class StoredLanes(Connected):
    """Implements `headrace.bus.Lanes`."""

    @rechecking_cancelled
    async def submit(self, model: str, priority: str, payload: bytes, *, message_id: str) -> int:
        headers = {"Nats-Msg-Id": message_id}
        try:
            stored = await self._js.publish(
                subjects.lane(model, priority), payload, timeout=SUBMIT_S, headers=headers
            )
        except nats.js.errors.APIError as error:
            if error.err_code == _LANE_AT_BOUND:
                raise LaneLimitReached(
                    f"lane {model}/{priority} holds {LANE_BOUND} requests"
                ) from error
            raise BusUnavailable(f"request {message_id} was not stored: {error}") from error
        except (TimeoutError, nats.errors.Error) as error:
            if isinstance(error, TimeoutError):
                await self.reconnect_if_silent()
            raise BusUnavailable(
                f"request {message_id} may not be stored: {error or 'no answer'}"
            ) from error
        return stored.seq

    @rechecking_cancelled
    async def take_over(self, model: str, priority: str) -> JetStreamLane:
        name = f"{lane_id(model)}-{priority}"
        lanes = [subjects.lane(model, priority)]
        if (former := subjects.former_lane(model, priority)) is not None:
            # Messages of an earlier version are read too, so its consumer of them must go.
            lanes.append(former)
            await self._delete(f"{model}-{priority}")
        # Why: without the old consumer the stream, which keeps a message until it is acknowledged,
        # delivers at once what the last leader had pulled.
        await self._delete(name)
        config = ConsumerConfig(
            durable_name=name,
            filter_subjects=lanes,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=LANE_BOUND,
        )
        with unavailable(f"lane {model}/{priority}"):
            await self._js.add_consumer(REQUEST_STREAM, config, timeout=ELECTION_S)
            pull = await self._js.pull_subscribe_bind(consumer=name, stream=REQUEST_STREAM)
        return JetStreamLane(self._client, pull)

    async def _delete(self, consumer: str) -> None:
        """Delete a consumer; again and again, because a cluster without a leader drops the call."""
        js = self._client.jetstream(timeout=DELETE_TIMEOUT_S)
        end_s = time.monotonic() + ELECTION_S
        with unavailable(f"lane {consumer}"), contextlib.suppress(nats.js.errors.NotFoundError):
            while True:
                try:
                    await js.delete_consumer(REQUEST_STREAM, consumer)
                except nats.errors.TimeoutError:
                    if time.monotonic() > end_s:
                        raise
                else:
                    return

    @rechecking_cancelled
    async def store_dead_letter(self, model: str, letter: bytes) -> None:
        await self._store(subjects.dead_letter(model), letter)

    @rechecking_cancelled
    async def dead_letters(self, *, limit: int) -> list[StoredDeadLetter]:
        found: list[StoredDeadLetter] = []
        with unavailable("dead letters"):
            kept = (await self._js.stream_info(DEAD_STREAM)).state
            number = kept.last_seq
            while number >= max(1, kept.first_seq) and len(found) < limit:
                if (letter := await self._dead_letter(number)) is not None:
                    found.append(letter)
                number -= 1
        return found

    @rechecking_cancelled
    async def dead_letter(self, sequence: int) -> StoredDeadLetter | None:
        with unavailable("dead letters"):
            return await self._dead_letter(sequence)

    async def _dead_letter(self, sequence: int) -> StoredDeadLetter | None:
        try:
            message = await self._js.get_msg(DEAD_STREAM, sequence)
        except nats.js.errors.NotFoundError:
            return None
        lane = (message.subject or "").rpartition(".")[2]
        return StoredDeadLetter(lane, message.data or b"", sequence)


class JetStreamLane:
    """One lane's pull consumer."""

    def __init__(self, client: Client, pull: JetStreamContext.PullSubscription) -> None:
        self._client = client
        self._pull = pull
        self._arrived = 0
        """Deliveries of this consumer that have arrived, without a gap."""
        self._was_incomplete = False

    @rechecking_cancelled
    async def pull(self, *, max_messages: int, timeout_s: float) -> list[PulledMessage]:
        try:
            found = await self._pull.fetch(max_messages, timeout=timeout_s)
        except (TimeoutError, nats.errors.TimeoutError):
            await self._check_all_arrived()
            return []
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane: {error or 'no answer'}") from error
        for message in found:
            number = message.metadata.sequence.consumer
            if number > self._arrived + 1:
                raise LaneBroken(f"delivery {number} came, and {self._arrived + 1} did not")
            self._arrived = max(self._arrived, number)
        return [PulledMessage(m.data, m.metadata.sequence.stream, m.reply) for m in found]

    @property
    def arrived(self) -> int:
        return self._arrived

    @rechecking_cancelled
    async def end(self) -> int:
        with unavailable("lane"):
            info = await self._pull.consumer_info()
        delivered = 0 if info.delivered is None else info.delivered.consumer_seq
        return delivered + (info.num_pending or 0)

    async def _check_all_arrived(self) -> None:
        """Raise LaneBroken if the consumer has delivered something that has not arrived.

        Why: what is on its way when a broker or a connection dies counts as delivered, and is not
        delivered again before `ACK_WAIT_S`.
        """
        with unavailable("lane"):
            delivered = (await self._pull.consumer_info()).delivered
        number = 0 if delivered is None else delivered.consumer_seq
        if number <= self._arrived:
            self._was_incomplete = False
        elif self._was_incomplete:
            raise LaneBroken(f"delivery {number} never came; {self._arrived} did")
        else:
            # It may have been sent just now; then the next pull returns it.
            self._was_incomplete = True

    @rechecking_cancelled
    async def acknowledge(self, acknowledgement: str) -> None:
        if not self._client.is_connected:
            raise BusUnavailable("no connection to NATS; not acknowledged")
        with unavailable("not acknowledged"):
            await self._client.request(acknowledgement, b"+ACK", timeout=2.0)

    async def close(self) -> None:
        if not self._client.is_closed:
            await self._pull.unsubscribe()

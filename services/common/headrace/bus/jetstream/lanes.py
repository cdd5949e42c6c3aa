"""Lanes: one work-queue stream, a durable pull consumer per lane. Why so: ADR 2."""

from __future__ import annotations

import contextlib
import time

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from headrace.bus import Buried, BusUnavailable, LaneAtBound, LaneBroken, Pulled, subjects
from headrace.bus.jetstream.connection import Connected
from headrace.bus.jetstream.stores import ACK_WAIT_S, DEAD_STREAM, LANE_BOUND, REQUEST_STREAM
from headrace.cancellation import rechecking_cancelled
from headrace.model_names import lane_id

_LANE_AT_BOUND = 10077
SUBMIT_S = 1.5
"""Longest wait for one request to be stored; then it is sent again, under the same id, and to
another server where this one is silent."""
ASK_AGAIN_S = 1.0
ELECTION_S = 20.0
"""A consumer that is made while a server of a cluster is down answers once its copies have elected
a leader, which takes 4 to 9 s; asking again meanwhile would begin anew. A lone server answers in
milliseconds."""


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
                raise LaneAtBound(f"lane {model}/{priority} holds {LANE_BOUND} requests") from error
            raise BusUnavailable(f"request {message_id} was not stored: {error}") from error
        except (TimeoutError, nats.errors.Error) as error:
            if isinstance(error, TimeoutError):
                await self.leave_silent_server()
            raise BusUnavailable(
                f"request {message_id} may not be stored: {error or 'no answer'}"
            ) from error
        return stored.seq

    @rechecking_cancelled
    async def take_over(self, model: str, priority: str) -> JetStreamLane:
        name = f"{lane_id(model)}-{priority}"
        lanes = [subjects.lane(model, priority)]
        if (former := subjects.former_lane(model, priority)) is not None:
            # What a mesh of an earlier version left here is read as well, and its consumer, which
            # would have it for its own, is no more.
            lanes.append(former)
            await self._forget(f"{model}-{priority}")
        # Why: deleting the consumer forgets what the last leader had pulled, so that the
        # stream, which keeps a message until it is acknowledged, gives it out again at once.
        await self._forget(name)
        config = ConsumerConfig(
            durable_name=name,
            filter_subjects=lanes,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=LANE_BOUND,
        )
        try:
            await self._js.add_consumer(REQUEST_STREAM, config, timeout=ELECTION_S)
            pull = await self._js.pull_subscribe_bind(consumer=name, stream=REQUEST_STREAM)
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane {model}/{priority}: {error or 'no answer'}") from error
        return JetStreamLane(self._client, pull)

    async def _forget(self, consumer: str) -> None:
        """Delete it. A cluster without a leader drops what it is asked, so it is asked often."""
        impatient = self._client.jetstream(timeout=ASK_AGAIN_S)
        end_s = time.monotonic() + ELECTION_S
        while True:
            try:
                await impatient.delete_consumer(REQUEST_STREAM, consumer)
            except nats.js.errors.NotFoundError:
                return
            except nats.errors.Error as error:
                if not isinstance(error, nats.errors.TimeoutError) or time.monotonic() > end_s:
                    raise BusUnavailable(f"lane {consumer}: {error or 'no answer'}") from error
            else:
                return

    @rechecking_cancelled
    async def bury(self, model: str, letter: bytes) -> None:
        await self._store(subjects.dead_letter(model), letter)

    @rechecking_cancelled
    async def buried(self, *, limit: int) -> list[Buried]:
        """The latest of what `bury` keeps, newest first.

        Raises:
            BusUnavailable: the broker is away.
        """
        found: list[Buried] = []
        try:
            kept = (await self._js.stream_info(DEAD_STREAM)).state
            number = kept.last_seq
            while number >= max(1, kept.first_seq) and len(found) < limit:
                with contextlib.suppress(nats.js.errors.NotFoundError):  # one that was removed
                    message = await self._js.get_msg(DEAD_STREAM, number)
                    lane = (message.subject or "").rpartition(".")[2]
                    found.append(Buried(lane, message.data or b""))
                number -= 1
        except nats.errors.Error as error:
            raise BusUnavailable(f"dead letters: {error or 'no answer'}") from error
        return found


class JetStreamLane:
    """One lane's pull consumer."""

    def __init__(self, client: Client, pull: JetStreamContext.PullSubscription) -> None:
        self._client = client
        self._pull = pull
        self._arrived = 0
        """How many deliveries of this consumer have come, without a gap."""
        self._doubted = False

    @rechecking_cancelled
    async def pull(self, *, max_messages: int, timeout_s: float) -> list[Pulled]:
        try:
            found = await self._pull.fetch(max_messages, timeout=timeout_s)
        except (TimeoutError, nats.errors.TimeoutError):
            await self._check_that_all_came()
            return []
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane: {error or 'no answer'}") from error
        for message in found:
            number = message.metadata.sequence.consumer
            if number > self._arrived + 1:
                raise LaneBroken(f"delivery {number} came, and {self._arrived + 1} did not")
            self._arrived = max(self._arrived, number)
        return [Pulled(m.data, m.metadata.sequence.stream, m.reply) for m in found]

    async def _check_that_all_came(self) -> None:
        """Why: what is on its way when a broker or a connection dies has been delivered as far as
        the consumer knows, and is not given out again for as long as `ACK_WAIT_S`."""
        try:
            delivered = (await self._pull.consumer_info()).delivered
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane: {error or 'no answer'}") from error
        number = 0 if delivered is None else delivered.consumer_seq
        if number <= self._arrived:
            self._doubted = False
        elif self._doubted:
            raise LaneBroken(f"delivery {number} never came; {self._arrived} did")
        else:
            # It may have been sent just now; then the next pull has it.
            self._doubted = True

    @rechecking_cancelled
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

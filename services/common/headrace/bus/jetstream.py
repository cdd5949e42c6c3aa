"""The bus over NATS: core messages, JetStream lanes, KV leases, object store.

The only module that knows it is NATS. Facts it builds on, all observed on
nats-server 2.15: see docs/adr/0002-bus.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    ObjectStoreConfig,
    RawStreamMsg,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from headrace.bus import (
    Answer,
    BusUnavailable,
    LaneAtBound,
    LeaseTaken,
    NobodyAnswered,
    OnMessage,
    Pulled,
    subjects,
)

log = logging.getLogger(__name__)

REQUEST_STREAM, RESULT_STREAM, DEAD_STREAM = "REQUESTS", "RESULTS", "DEAD_LETTERS"
CARD_BUCKET, LEASE_BUCKET, TOKENIZER_BUCKET = (
    "headrace_models",
    "headrace_leases",
    "headrace_tokenizers",
)

LANE_BOUND = 100_000
"""Unsettled requests of one lane that the broker holds. A bound on its disk, far above the
scheduler's own `max_waiting`, which is the one that callers meet."""
CARD_KEPT_S = 24 * 3600
"""A model is known this long after its last worker said so: requests for it wait."""
RESULT_KEPT_S = 600
DEAD_LETTER_KEPT_S = 7 * 24 * 3600
ACK_WAIT_S = 24 * 3600
"""A leader holds what it pulled until it is settled, and its successor takes everything over
by making the consumer anew: redelivery by time-out is never wanted."""

_LANE_AT_BOUND = 10077
_WRONG_LAST_SEQUENCE = 10071
_STORE_TIMEOUT_S = 5.0


class _Subscription:
    def __init__(self, inner: NatsSubscription) -> None:
        self._inner = inner

    async def close(self) -> None:
        if not self._inner._conn.is_closed:  # nats-py raises for a closed connection
            await self._inner.unsubscribe()


class JetStreamBus:
    """A connection. Made by `connect`; reconnects by itself for as long as it takes."""

    def __init__(self, client: Client) -> None:
        self.closing = False
        self._client = client
        self._js = client.jetstream(timeout=_STORE_TIMEOUT_S)
        self._answers: set[asyncio.Task[None]] = set()
        self._kv: dict[str, KeyValue] = {}
        self._revisions: dict[str, int] = {}

    # Messages

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    async def publish(self, subject: str, payload: bytes) -> None:
        # Why: nats-py would buffer while disconnected and send stale reports later.
        if self._client.is_connected:
            await self._client.publish(subject, payload)

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if not self._client.is_connected:
            raise BusUnavailable(f"no connection to NATS; {subject} was not asked")
        try:
            answer = await self._client.request(subject, payload, timeout=timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NobodyAnswered(f"nobody serves {subject}") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise NobodyAnswered(f"no answer from {subject} in {timeout_s:g} s") from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"{subject}: {error}") from error
        return answer.data

    async def subscribe(self, subject: str, on_message: OnMessage) -> _Subscription:
        async def receive(message: Msg) -> None:
            on_message(message.data)

        return _Subscription(await self._client.subscribe(subject, cb=receive))

    async def serve(self, subject: str, answer: Answer) -> _Subscription:
        async def answer_one(message: Msg) -> None:
            try:
                await message.respond(await answer(message.data))
            except Exception:  # top of a task; the asker repeats
                log.exception("bus.answer_failed", extra={"subject": subject})

        async def receive(message: Msg) -> None:
            task = asyncio.create_task(answer_one(message))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

        return _Subscription(await self._client.subscribe(subject, cb=receive))

    # Lanes

    async def submit(self, model: str, priority: str, payload: bytes, *, message_id: str) -> None:
        headers = {"Nats-Msg-Id": message_id}
        try:
            await self._js.publish(subjects.lane(model, priority), payload, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == _LANE_AT_BOUND:
                raise LaneAtBound(f"lane {model}/{priority} holds {LANE_BOUND} requests") from error
            raise BusUnavailable(f"request {message_id} was not stored: {error}") from error
        except nats.errors.Error as error:
            raise BusUnavailable(
                f"request {message_id} may not be stored: {error or 'no answer'}"
            ) from error

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

    async def bury(self, model: str, letter: bytes) -> None:
        await self._store(subjects.dead_letter(model), letter)

    # Cards

    async def put_card(self, model: str, card: bytes) -> None:
        try:
            await self._kv[CARD_BUCKET].put(model, card)
        except nats.errors.Error as error:
            raise BusUnavailable(f"model card {model}: {error or 'no answer'}") from error

    async def watch_cards(self, on_card: Callable[[str, bytes], None]) -> _Subscription:
        prefix = f"$KV.{CARD_BUCKET}."

        async def receive(message: Msg) -> None:
            if message.data:
                on_card(message.subject.removeprefix(prefix), message.data)

        # An ordered consumer: made anew by the client after a gap or a reconnect.
        inner = await self._js.subscribe(f"{prefix}>", cb=receive, ordered_consumer=True)
        return _Subscription(inner)

    async def put_tokenizer(self, digest: str, bundle: bytes) -> None:
        try:
            store = await self._objects()
            try:
                await store.get_info(digest)
            except nats.js.errors.NotFoundError:
                await store.put(digest, bundle)
        except nats.errors.Error as error:
            raise BusUnavailable(f"tokenizer {digest}: {error or 'no answer'}") from error

    async def get_tokenizer(self, digest: str) -> bytes:
        try:
            found = (await (await self._objects()).get(digest)).data
        except nats.js.errors.NotFoundError as error:
            raise KeyError(digest) from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"tokenizer {digest}: {error or 'no answer'}") from error
        return found or b""

    async def _objects(self) -> ObjectStore:
        return await self._js.object_store(TOKENIZER_BUCKET)

    # Leases

    async def acquire(self, name: str, holder: str, *, ttl_s: int) -> int:
        subject = f"$KV.{LEASE_BUCKET}.{name}"
        last = await self._last(subject)
        if last is not None and last.data and not _is_marker(last):
            raise LeaseTaken(f"{name} is held by {last.data.decode(errors='replace')}")
        epoch = await self._claim(subject, holder, last.seq if last and last.seq else 0, ttl_s)
        self._revisions[name] = epoch
        return epoch

    async def renew(self, name: str, holder: str, *, ttl_s: int) -> None:
        # Why: KeyValue.update would take the lease's time to live away.
        subject = f"$KV.{LEASE_BUCKET}.{name}"
        self._revisions[name] = await self._claim(
            subject, holder, self._revisions.get(name, 0), ttl_s
        )

    async def release(self, name: str) -> None:
        if self._revisions.pop(name, None) is not None:
            try:
                await self._kv[LEASE_BUCKET].delete(name)
            except nats.errors.Error as error:
                raise BusUnavailable(f"lease {name}: {error or 'no answer'}") from error

    async def _last(self, subject: str) -> RawStreamMsg | None:
        try:
            return await self._js.get_last_msg(f"KV_{LEASE_BUCKET}", subject)
        except nats.js.errors.NotFoundError:
            return None
        except nats.errors.Error as error:
            raise BusUnavailable(f"{subject}: {error or 'no answer'}") from error

    async def _claim(self, subject: str, holder: str, after: int, ttl_s: int) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(after)}
        try:
            ack = await self._js.publish(
                subject, holder.encode(), headers=headers, msg_ttl=float(ttl_s)
            )
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise LeaseTaken(f"{subject} was taken by another") from error
            raise BusUnavailable(f"{subject}: {error}") from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"{subject}: {error or 'no answer'}") from error
        return ack.seq

    # Results

    async def put_result(self, request_id: str, record: bytes) -> None:
        await self._store(subjects.result(request_id), record)

    async def get_result(self, request_id: str) -> bytes | None:
        try:
            found = await self._js.get_last_msg(RESULT_STREAM, subjects.result(request_id))
        except nats.js.errors.NotFoundError:
            return None
        except nats.errors.Error as error:
            raise BusUnavailable(f"result {request_id}: {error or 'no answer'}") from error
        return found.data

    async def _store(self, subject: str, payload: bytes) -> None:
        try:
            await self._js.publish(subject, payload)
        except nats.errors.Error as error:
            raise BusUnavailable(f"{subject}: {error or 'no answer'}") from error

    # Life

    async def close(self) -> None:
        self.closing = True
        for task in self._answers:
            task.cancel()
        await self._client.close()

    async def ensure_stores(self) -> None:
        """Make streams and buckets that are not there. Safe from many processes at once."""
        for config in _streams():
            try:
                await self._js.add_stream(config)
            except nats.js.errors.BadRequestError:  # there, made by another version of us
                await self._js.update_stream(config)
        leases = KeyValueConfig(bucket=LEASE_BUCKET, history=1, storage=StorageType.FILE)
        self._kv[LEASE_BUCKET] = await self._bucket(leases)
        cards = KeyValueConfig(bucket=CARD_BUCKET, history=1, ttl=CARD_KEPT_S)
        self._kv[CARD_BUCKET] = await self._bucket(cards)
        await self._js.create_object_store(TOKENIZER_BUCKET, config=ObjectStoreConfig())

    async def _bucket(self, config: KeyValueConfig) -> KeyValue:
        try:
            return await self._js.create_key_value(config)
        except nats.js.errors.BadRequestError:
            return await self._js.key_value(config.bucket)


class JetStreamLane:
    """One lane's pull consumer."""

    def __init__(self, client: Client, pull: JetStreamContext.PullSubscription) -> None:
        self._client = client
        self._pull = pull

    async def pull(self, *, max_messages: int, timeout_s: float) -> list[Pulled]:
        try:
            found = await self._pull.fetch(max_messages, timeout=timeout_s)
        except (TimeoutError, nats.errors.TimeoutError):
            return []
        except nats.errors.Error as error:
            raise BusUnavailable(f"lane: {error or 'no answer'}") from error
        return [Pulled(m.data, m.metadata.sequence.stream, m.reply) for m in found]

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


def _is_marker(message: RawStreamMsg) -> bool:
    headers = message.headers or {}
    return "Nats-Marker-Reason" in headers or headers.get("KV-Operation") in ("DEL", "PURGE")


def _streams() -> list[StreamConfig]:
    return [
        StreamConfig(
            name=REQUEST_STREAM,
            subjects=[f"{subjects.REQUESTS}.*.*"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_msgs_per_subject=LANE_BOUND,
            discard_new_per_subject=True,
            duplicate_window=120,
        ),
        StreamConfig(
            name=RESULT_STREAM,
            subjects=[f"{subjects.RESULTS}.*"],
            storage=StorageType.FILE,
            max_age=RESULT_KEPT_S,
            max_msgs_per_subject=1,
            max_bytes=1 << 30,
        ),
        StreamConfig(
            name=DEAD_STREAM,
            subjects=[f"{subjects.DEAD_LETTERS}.*"],
            storage=StorageType.FILE,
            max_age=DEAD_LETTER_KEPT_S,
            max_bytes=1 << 28,
        ),
    ]


async def connect(url: str, *, name: str, wait_s: float = 30.0) -> JetStreamBus:
    """Connect and make sure that streams and buckets are there.

    Raises:
        BusUnavailable: no answer within `wait_s`.
    """

    async def disconnected() -> None:
        if not bus.closing:
            log.warning("bus.disconnected")

    async def reconnected() -> None:
        log.warning("bus.reconnected")

    async def swallow(error: Exception) -> None:
        log.debug("bus.error", extra={"error": repr(error)})

    options: dict[str, Any] = {
        "name": name,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.2,
        "disconnected_cb": disconnected,
        "reconnected_cb": reconnected,
        "error_cb": swallow,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
    }
    client = Client()
    bus = JetStreamBus(client)
    try:
        async with asyncio.timeout(wait_s):
            await client.connect(url, **options)
            await _until_stores(bus)
    except (TimeoutError, OSError, nats.errors.Error) as error:
        raise BusUnavailable(f"no NATS within {wait_s:g} s: {error or 'no answer'}") from error
    return bus


async def _until_stores(bus: JetStreamBus) -> None:
    # JetStream comes up a moment after the port does.
    while True:
        try:
            return await bus.ensure_stores()
        except nats.errors.Error as error:
            log.info("bus.waiting_for_jetstream", extra={"error": repr(error)})
            await asyncio.sleep(0.2)

"""The stream of usage records, read by sequence; and where the requests are from that it is about.

Why without consumers: the scheduler writes this stream, and the broker delivers what a consumer
reads to any subject that its creator names. The broker publishes what it has stored, with its
sequence. What does not follow a reader's position (at the start, after a reconnect, where one was
lost) the reader reads from the stream.

A broker that loses its power forgets what it had not synced, so the stream may be put back, with
its time of creation: a reader's position is past its end, or of another message. Whoever finds that
first gives the stream a name more, in a row beside it, and all read it from its beginning.

A restored stream of requests has a new time of creation. So the sources of what it held are saved
with it, and stored again beside it, in a row that names the new stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections import deque
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg

from headrace.bus import BusUnavailable, StoreRefused, subjects
from headrace.bus.jetstream.connection import Connected, is_for, stream_info, unavailable
from headrace.bus.jetstream.stores import WRONG_LAST_SEQUENCE
from headrace.bus.stores import POSITION_BUCKET, REQUEST_STREAM, USAGE_STREAM
from headrace.bus.usage import KEEPER, RequestSources, StoredUsage, UsagePosition, UsageState
from headrace.cancellation import recheck_cancelled, rechecking_cancelled

log = logging.getLogger(__name__)

PUBLISH_S = 2.0
"""Longest wait for records to be stored; then they are sent again."""
IDLE_POLL_S = 1.0
"""Time between reads while the broker publishes nothing: the last message may have been lost."""
RECENT_MESSAGES, RECENT_BYTES = 1024, 8 << 20
"""Most of what was published that is kept for a reader; earlier messages are read."""
CHECK_S = 1.0
NAME_SUBJECT = f"$KV.{POSITION_BUCKET}.{USAGE_STREAM}"
"""Row of the stream's name, where it is not its time of creation alone."""
_READ_AT_ONCE = 32
_STORE_FAILED = 10077
"""The server's error code for a message that exceeds a bound of its stream."""


class RecentUsage:
    """The newest messages of a stream, without a gap, as the broker published them. Pure."""

    def __init__(self) -> None:
        self._messages: deque[StoredUsage] = deque()
        self._bytes = 0
        self._stream, self._since = "", datetime.min.replace(tzinfo=UTC)

    def begin(self, stream: str) -> None:
        """Keep only what is of this stream, whose name begins with its time of creation."""
        if stream != self._stream:
            self._clear()
            self._stream = stream
            self._since = datetime.fromisoformat(stream.partition(" ")[0])

    def add(self, sequence: int, stored_at: str, payload: bytes) -> None:
        if (time_stored := datetime.fromisoformat(stored_at)) < self._since:
            return  # of the stream before
        if sequence != self.last + 1:
            self._clear()
        position = UsagePosition(self._stream, sequence, time_stored.isoformat())
        self._messages.append(StoredUsage(position, payload))
        self._bytes += len(payload)
        while len(self._messages) > RECENT_MESSAGES or self._bytes > RECENT_BYTES:
            self._bytes -= len(self._messages.popleft().payload)

    def _clear(self) -> None:
        self._messages.clear()
        self._bytes = 0

    @property
    def last(self) -> int:
        """Sequence of the newest message; -1 if there is none."""
        return self._messages[-1].position.sequence if self._messages else -1

    def after(self, sequence: int, max_messages: int) -> list[StoredUsage]:
        """Return what follows; none as well if that is not known."""
        # From the end: a reader is nearly there.
        count = self.last - sequence
        if not 0 < count <= len(self._messages):
            return []
        first = len(self._messages) - count
        return [self._messages[first + i] for i in range(min(count, max_messages))]


class StoredUsageStream(Connected):
    """Implements `headrace.bus.UsageStream`."""

    _usage_stream = ""
    """`UsagePosition.stream`, as of `_usage_checked`."""
    _usage_checked = -1, float("-inf")
    """How many reconnects there were then, and when that was."""
    _usage_arrived: asyncio.Event | None = None
    """Set when the broker publishes what it has stored. None: this connection has read nothing
    yet."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._recent_usage = RecentUsage()

    @rechecking_cancelled
    async def publish_usage(self, records: bytes) -> None:
        if not self._client.is_connected:
            raise BusUnavailable("no connection to NATS; no usage record was sent")
        headers = {"Nats-Msg-Id": hashlib.blake2b(records, digest_size=16).hexdigest()}
        try:
            await self._js.publish(subjects.USAGE, records, timeout=PUBLISH_S, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == _STORE_FAILED:
                raise StoreRefused(f"usage records: {error.description}") from error
            raise BusUnavailable(f"usage records were not stored: {error}") from error
        except (TimeoutError, nats.errors.Error) as error:
            if isinstance(error, TimeoutError):
                await self.reconnect_if_silent()
            raise BusUnavailable(
                f"usage records may not be stored: {error or 'no answer'}"
            ) from error

    @rechecking_cancelled
    async def usage_after(
        self, position: UsagePosition | None, *, max_messages: int, timeout_s: float
    ) -> list[StoredUsage]:
        end_s, recent, is_idle = time.monotonic() + timeout_s, self._recent_usage, False
        arrived = await self._watch_usage()
        while True:
            arrived.clear()
            stream = await self._current_stream(position)
            known = 0 if position is None or position.stream != stream else position.sequence
            if found := recent.after(known, max_messages):
                return found
            left_s = end_s - time.monotonic()
            if is_idle or left_s <= 0 or recent.last != known:
                read = await self._read_after(known, max_messages)
                if self._usage_checked[0] != self.reconnects:
                    continue
                if read:
                    return [_stored(stream, message) for message in read]
                if left_s <= 0:
                    return []
            try:
                async with asyncio.timeout(min(left_s, IDLE_POLL_S)):
                    await arrived.wait()
                is_idle = False
            except TimeoutError:
                is_idle = True
            recheck_cancelled()

    async def _watch_usage(self) -> asyncio.Event:
        if self._usage_arrived is not None:
            return self._usage_arrived
        arrived = self._usage_arrived = asyncio.Event()

        async def on_stored(message: Msg) -> None:
            if is_for(subjects.USAGE_STORED, message):
                # The broker's come last, and the last of a name counts.
                headers = message.headers or {}
                sequence, stored_at = headers["Nats-Sequence"], headers["Nats-Time-Stamp"]
                self._recent_usage.add(int(sequence), stored_at, message.data)
                arrived.set()

        with unavailable("usage records"):
            try:
                await self._client.subscribe(subjects.USAGE_STORED, cb=on_stored)
            except BaseException:
                self._usage_arrived = None
                raise
        return arrived

    async def _read_after(self, sequence: int, max_messages: int) -> list[RawStreamMsg]:
        """Return the messages after a sequence; a message that is missing ends them."""
        first = await self._usage_message(sequence + 1, is_first=True)
        found = [] if first is None else [first]
        while found and len(found) < max_messages:
            after = (found[-1].seq or 0) + 1
            count = min(_READ_AT_ONCE, max_messages - len(found))
            read = await asyncio.gather(
                *(self._usage_message(after + i, is_first=False) for i in range(count))
            )
            end = read.index(None) if None in read else len(read)
            found += [message for message in read[:end] if message is not None]
            if end < len(read):
                break
        return found

    async def _usage_message(self, sequence: int, *, is_first: bool) -> RawStreamMsg | None:
        with unavailable("usage records"):
            try:
                if is_first:
                    return await self._js.get_msg(
                        USAGE_STREAM, sequence, subject=subjects.USAGE, next=True
                    )
                return await self._js.get_msg(USAGE_STREAM, sequence)
            except nats.js.errors.NotFoundError:
                return None

    @rechecking_cancelled
    async def usage_state(self) -> UsageState:
        info = await stream_info(self, USAGE_STREAM)
        config, state = info["config"], info["state"]
        age_s = 0.0
        if state["messages"]:
            first = datetime.fromisoformat(state["first_ts"])
            age_s = max(0.0, (datetime.now(UTC) - first).total_seconds())
        return UsageState(
            UsagePosition((await self._name(info["created"]))[0], state["last_seq"]),
            messages=state["messages"],
            stored_bytes=state["bytes"],
            max_bytes=config["max_bytes"],
            oldest_age_s=age_s,
            max_age_s=config["max_age"] / 1e9,
        )

    @rechecking_cancelled
    async def put_usage_position(self, reader: str, position: UsagePosition) -> None:
        value = f"{position.sequence} {position.stream}".encode()
        await self._store(f"$KV.{POSITION_BUCKET}.{reader}", value)

    @rechecking_cancelled
    async def purge_usage(self, position: UsagePosition) -> None:
        await self._check_stream(position)
        stream = self._usage_stream
        with unavailable("usage records"):
            try:
                found = await self._js.get_last_msg(
                    f"KV_{POSITION_BUCKET}", f"$KV.{POSITION_BUCKET}.{KEEPER}"
                )
            except nats.js.errors.NotFoundError:
                return
            sequence, _, of_stream = (found.data or b"").decode().partition(" ")
            if position.stream == of_stream == stream:
                through = min(position.sequence, int(sequence))
                await self._js.purge_stream(USAGE_STREAM, seq=through + 1)

    @rechecking_cancelled
    async def request_sources(self) -> RequestSources:
        return await read_sources(self)

    async def _current_stream(self, position: UsagePosition | None) -> str:
        """Return the name of the stream; it may be made again without a reconnect."""
        reconnects, checked_s = self._usage_checked
        if reconnects != self.reconnects or time.monotonic() >= checked_s + CHECK_S:
            await self._check_stream(position)
        return self._usage_stream

    async def _check_stream(self, position: UsagePosition | None) -> None:
        """Look at the stream; give it another name if it does not hold this position any more."""
        checked = self.reconnects, time.monotonic()
        info = await stream_info(self, USAGE_STREAM)
        name, revision = await self._name(info["created"])
        if position and position.stream == name:
            last = info["state"]["last_seq"]
            is_first = self._usage_checked[0] != self.reconnects
            if position.sequence > last or (is_first and await self._is_another(position)):
                facts = {"stream": name, "position": position.sequence, "last": last}
                log.error("usage.stream_put_back", extra=facts)
                await self._rename(info["created"], revision)
                name, _ = await self._name(info["created"])
        self._usage_stream, self._usage_checked = name, checked
        self._recent_usage.begin(name)

    async def _is_another(self, position: UsagePosition) -> bool:
        """Return whether the message at a position is not the one that was read there."""
        if not position.stored_at:
            return False
        message = await self._usage_message(position.sequence, is_first=False)
        return message is not None and _stored_at(message) != position.stored_at

    async def _name(self, created: str) -> tuple[str, int]:
        """Return the stream's name, and the revision of the row that it is in; 0: of none."""
        with unavailable("name of the stream of usage"):
            try:
                row = await self._js.get_last_msg(f"KV_{POSITION_BUCKET}", NAME_SUBJECT)
            except nats.js.errors.NotFoundError:
                return created, 0
        name = (row.data or b"").decode()
        return (name if name.startswith(f"{created} ") else created), row.seq or 0

    async def _rename(self, created: str, revision: int) -> None:
        """Store a new name, unless another process does."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        name = f"{created} {secrets.token_hex(8)}"
        with unavailable("name of the stream of usage"):
            try:
                await self._js.publish(NAME_SUBJECT, name.encode(), headers=headers)
            except nats.js.errors.APIError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    raise


def _stored(stream: str, message: RawStreamMsg) -> StoredUsage:
    position = UsagePosition(stream, message.seq or 0, _stored_at(message))
    return StoredUsage(position, message.data or b"")


def _stored_at(message: RawStreamMsg) -> str:
    return "" if message.time is None else message.time.isoformat()


async def read_sources(bus: Connected) -> RequestSources:
    """Return the sources of the stream of requests. Raises as `stream_info`."""
    created = (await stream_info(bus, REQUEST_STREAM))["created"]
    with unavailable("sources of requests"):
        try:
            row = await bus.jetstream.get_last_msg(f"KV_{POSITION_BUCKET}", _subject(created))
        except nats.js.errors.NotFoundError:
            return RequestSources(f"requests:{created}")
    former = tuple((last, source) for last, source in json.loads(row.data or b"[]"))
    return RequestSources(f"requests:{created}", former)


async def save_sources(bus: Connected, last_sequence: int) -> list[tuple[int, str]]:
    """Return the sources of a stream of requests up to its last message, for a backup of it."""
    sources = await read_sources(bus)
    return [*sources.former, (last_sequence, sources.current)]


async def restore_sources(bus: Connected, saved: list[tuple[int, str]]) -> None:
    """Store the sources of what the stream of requests held when it was saved."""
    created = (await stream_info(bus, REQUEST_STREAM))["created"]
    with unavailable("sources of requests"):
        try:
            await bus.jetstream.key_value(POSITION_BUCKET)
        except nats.js.errors.NotFoundError:
            await bus.jetstream.create_key_value(bucket=POSITION_BUCKET, history=1)
        await bus.jetstream.publish(_subject(created), json.dumps(saved).encode())


def _subject(created: str) -> str:
    # Dots separate the parts of a subject.
    name = created.replace(".", "_").replace(":", "-")
    return f"$KV.{POSITION_BUCKET}.requests.{name}"

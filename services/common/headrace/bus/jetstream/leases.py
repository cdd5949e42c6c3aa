"""Leases, and the journal that fences whoever held one for too long.

Leases are keys with a time to live, whose revision is the epoch; ADR 2 has the reasons. The journal
is a stream that takes an entry only behind the one that its writer knows; ADR 16 has those.
"""

from __future__ import annotations

import asyncio
import contextlib

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import RawStreamMsg

from headrace.bus import BusUnavailable, LeaseTaken, StoreRefused, subjects
from headrace.bus.jetstream.connection import Connected, unavailable
from headrace.bus.jetstream.stores import WRONG_LAST_SEQUENCE
from headrace.bus.journal import JournalContents, JournalMoved
from headrace.bus.stores import LEASE_BUCKET, QUOTA_JOURNAL
from headrace.cancellation import rechecking_cancelled

APPEND_S = 1.5
"""Longest wait for an entry to be stored. After that its keeper steps down: it does not know what
the journal holds."""
_READ_AT_ONCE = 64
_STORE_FAILED = 10077
_WRONG_LAST = (WRONG_LAST_SEQUENCE, 10164)
"""The second is that of a cluster, in which another entry is under way."""


class KeyLeases(Connected):
    """Implements `headrace.bus.Leases`."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._revisions: dict[str, int] = {}

    @rechecking_cancelled
    async def acquire(self, name: str, holder: str, *, ttl_s: int) -> int:
        subject = f"$KV.{LEASE_BUCKET}.{name}"
        last = await self._last(subject)
        if last is not None and last.data and not _is_marker(last):
            raise LeaseTaken(f"{name} is held by {last.data.decode(errors='replace')}")
        epoch = await self._claim(subject, holder, last.seq if last and last.seq else 0, ttl_s)
        self._revisions[name] = epoch
        return epoch

    @rechecking_cancelled
    async def renew(self, name: str, holder: str, *, ttl_s: int) -> None:
        # Why: KeyValue.update would drop the lease's time to live.
        subject = f"$KV.{LEASE_BUCKET}.{name}"
        try:
            revision = await self._claim(subject, holder, self._revisions.get(name, 0), ttl_s)
        except LeaseTaken:
            # The last renewal may have been stored although its answer was lost: it is still ours.
            last = await self._last(subject)
            if last is None or not last.seq or last.data != holder.encode() or _is_marker(last):
                raise
            revision = await self._claim(subject, holder, last.seq, ttl_s)
        self._revisions[name] = revision

    @rechecking_cancelled
    async def release(self, name: str) -> None:
        revision = self._revisions.pop(name, None)
        if revision is not None:
            expired = contextlib.suppress(nats.js.errors.KeyWrongLastSequenceError)
            with unavailable(f"lease {name}"), expired:
                await self._kv[LEASE_BUCKET].delete(name, last=revision)

    async def _last(self, subject: str) -> RawStreamMsg | None:
        with unavailable(subject):
            try:
                return await self._js.get_last_msg(f"KV_{LEASE_BUCKET}", subject)
            except nats.js.errors.NotFoundError:
                return None

    async def _claim(self, subject: str, holder: str, after: int, ttl_s: int) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(after)}
        with unavailable(subject):
            try:
                ack = await self._js.publish(
                    subject, holder.encode(), headers=headers, msg_ttl=float(ttl_s)
                )
            except nats.js.errors.APIError as error:
                if error.err_code == WRONG_LAST_SEQUENCE:
                    raise LeaseTaken(f"{subject} was taken by another process") from error
                raise
        return ack.seq


class StoredJournal(Connected):
    """Implements `headrace.bus.Journal`.

    Why without a consumer: the scheduler writes this stream, and the broker delivers what a
    consumer reads to any subject that its creator names.
    """

    @rechecking_cancelled
    async def append_entry(self, entry: bytes, *, after: int) -> int:
        if not self._client.is_connected:
            raise BusUnavailable("no connection to NATS; nothing was appended")
        headers = {"Nats-Expected-Last-Sequence": str(after)}
        try:
            stored = await self._js.publish(
                subjects.QUOTA_JOURNAL, entry, timeout=APPEND_S, headers=headers
            )
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_LAST:
                raise JournalMoved(f"the last entry is not {after}") from error
            if error.err_code == _STORE_FAILED:
                raise StoreRefused(f"journal: {error.description}") from error
            raise BusUnavailable(f"the entry after {after} was not stored: {error}") from error
        except (TimeoutError, nats.errors.Error) as error:
            if isinstance(error, TimeoutError):
                await self.reconnect_if_silent()
            raise BusUnavailable(
                f"the entry after {after} may not be stored: {error or 'no answer'}"
            ) from error
        return stored.seq

    @rechecking_cancelled
    async def read_journal(self) -> JournalContents:
        with unavailable("journal"):
            state = (await self._js.stream_info(QUOTA_JOURNAL)).state
        entries: list[bytes] = []
        first = state.first_seq if state.messages else state.last_seq + 1
        for start in range(first, state.last_seq + 1, _READ_AT_ONCE):
            end = min(start + _READ_AT_ONCE, state.last_seq + 1)
            entries += await asyncio.gather(*map(self._entry, range(start, end)))
        return JournalContents(entries, state.last_seq)

    async def _entry(self, sequence: int) -> bytes:
        with unavailable("journal"):
            try:
                return (await self._js.get_msg(QUOTA_JOURNAL, sequence)).data or b""
            except nats.js.errors.NotFoundError as error:
                raise JournalMoved(f"entry {sequence} is deleted") from error

    @rechecking_cancelled
    async def delete_entries(self, *, before: int) -> None:
        with unavailable("journal"):
            await self._js.purge_stream(QUOTA_JOURNAL, seq=before)


def _is_marker(message: RawStreamMsg) -> bool:
    headers = message.headers or {}
    return "Nats-Marker-Reason" in headers or headers.get("KV-Operation") in ("DEL", "PURGE")

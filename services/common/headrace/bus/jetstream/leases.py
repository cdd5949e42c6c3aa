"""Leases: keys with a time to live, whose revision is the epoch; ADR 2 has the reasons."""

from __future__ import annotations

import contextlib

import nats.js.errors
from nats.aio.client import Client
from nats.js.api import RawStreamMsg

from headrace.bus import LeaseTaken
from headrace.bus.jetstream.connection import Connected, unavailable
from headrace.bus.jetstream.stores import WRONG_LAST_SEQUENCE
from headrace.bus.stores import LEASE_BUCKET
from headrace.cancellation import rechecking_cancelled


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


def _is_marker(message: RawStreamMsg) -> bool:
    headers = message.headers or {}
    return "Nats-Marker-Reason" in headers or headers.get("KV-Operation") in ("DEL", "PURGE")

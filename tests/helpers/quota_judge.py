"""A judge of quotas who reads the journal, and knows nothing of how the keeper counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import nats.errors
import nats.js.errors

from headrace.bus import BusError
from headrace.bus.jetstream import JetStreamBus
from headrace.bus.stores import QUOTA_JOURNAL
from headrace.internal.v1.quota_pb2 import QuotaEntry

POLL_S = 0.1
WINDOW_MS = 60_000


class JournalHistory:
    """Reads every entry of the journal before a snapshot of the keeper deletes it."""

    def __init__(self, bus: JetStreamBus) -> None:
        self._bus = bus
        self.entries: list[QuotaEntry] = []
        self.last = 0

    async def follow(self) -> None:
        """Read until cancelled, however often the broker goes away."""
        while True:
            if not await self._read_next():
                await asyncio.sleep(POLL_S)

    async def catch_up(self) -> None:
        """Read what there is now."""
        end = (await self._bus.read_journal()).last
        while self.last < end:
            if not await self._read_next():
                await asyncio.sleep(POLL_S)

    async def _read_next(self) -> bool:
        try:
            stored = await self._bus.jetstream.get_msg(QUOTA_JOURNAL, self.last + 1)
        except (BusError, nats.errors.Error, TimeoutError) as error:
            if isinstance(error, nats.js.errors.NotFoundError):
                await self._check_not_deleted()
            return False
        self.entries.append(QuotaEntry.FromString(stored.data or b""))
        self.last += 1
        return True

    async def _check_not_deleted(self) -> None:
        """Raise AssertionError if the next entry was deleted before it was read."""
        try:
            state = (await self._bus.jetstream.stream_info(QUOTA_JOURNAL)).state
        except (nats.errors.Error, TimeoutError):
            return
        assert not state.messages or state.first_seq <= self.last + 1, "entries were not read"


@dataclass
class Charged:
    """What the journal says was granted, each reservation once."""

    tokens: dict[str, int] = field(default_factory=dict)
    """By reservation id: its totals."""
    grants: list[tuple[int, int, int]] = field(default_factory=list)
    """Time in ms, requests, tokens; the oldest first."""
    epochs: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Iterable[QuotaEntry]) -> Charged:
        found = cls()
        for entry in entries:
            if entry.epoch not in found.epochs:
                found.epochs.append(entry.epoch)
            for change in entry.changes:
                if change.HasField("charge"):
                    reserve = change.charge.reserve
                    known = found.tokens.get(reserve.reservation_id)
                    total = reserve.input_tokens + reserve.output_tokens
                    found.tokens[reserve.reservation_id] = max(total, known or 0)
                    more = max(0, total - (known or 0))
                    found.grants.append((entry.time_ms, int(known is None), more))
        return found

    @property
    def total(self) -> int:
        return sum(self.tokens.values())

    def fullest_minute(self) -> tuple[int, int]:
        """Return the most requests and the most tokens that were granted in any 60 s."""
        first = requests = tokens = most_requests = most_tokens = 0
        for at_ms, of_requests, of_tokens in self.grants:
            requests, tokens = requests + of_requests, tokens + of_tokens
            while self.grants[first][0] <= at_ms - WINDOW_MS:
                requests -= self.grants[first][1]
                tokens -= self.grants[first][2]
                first += 1
            most_requests, most_tokens = max(most_requests, requests), max(most_tokens, tokens)
        return most_requests, most_tokens

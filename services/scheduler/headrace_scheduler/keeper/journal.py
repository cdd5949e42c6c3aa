"""The journal as the keeper of it writes it: entries, and now and then a snapshot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from headrace.bus import BusError
from headrace.bus.journal import Journal, JournalMoved
from headrace.cancellation import recheck_cancelled
from headrace.internal.v1.quota_pb2 import QuotaChange, QuotaEntry
from headrace_scheduler.base import metrics
from headrace_scheduler.quota.record import QuotaRecord
from headrace_scheduler.quota.snapshot import Replay, snapshot_entries

log = logging.getLogger(__name__)

SNAPSHOT_ENTRIES = 2000
"""After so many entries a snapshot replaces them: a successor reads few more."""
SNAPSHOT_BYTES = 8 << 20
"""Or after so many bytes."""
SNAPSHOT_COST = 2
"""But not before the entries are so many times as large as the last snapshot."""
_REPLAYED_AT_ONCE = 50
_CHANGES = 2000
"""Of what was used before, in one entry: some 200 KB."""

Spent = Callable[[int], Awaitable[list[QuotaChange]]]
"""Returns what was used of the current days and months, at a Unix time in milliseconds."""


class JournalWriter:
    """Appends behind what it has read or appended last; another writer makes it useless."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last = 0
        self._entries = self._bytes = self._snapshot_bytes = 0
        """Since the last snapshot; and its size."""

    async def take_over(self, now_ms: int, spent: Spent) -> QuotaRecord:
        """Read the journal, and append the first entry of a new epoch: from then on no other
        writer can append.

        Args:
            spent: what was used before, for a journal that has never had an entry.

        Raises:
            BusError: it is not known whether that succeeded.
        """
        while True:
            try:
                return await self._try_take_over(now_ms, spent)
            except JournalMoved as moved:
                log.info("quota.journal_moved", extra={"why": str(moved)})
                recheck_cancelled()

    async def _try_take_over(self, now_ms: int, spent: Spent) -> QuotaRecord:
        contents = await self._journal.read_journal()
        replay = Replay()
        for number, entry in enumerate(contents.entries):
            replay.apply(QuotaEntry.FromString(entry))
            if number % _REPLAYED_AT_ONCE == 0:
                await asyncio.sleep(0)
        record, self._last = replay.record, contents.last
        self._entries, self._bytes = len(contents.entries), sum(map(len, contents.entries))
        begin = QuotaEntry(epoch=record.epoch + 1, time_ms=max(now_ms, record.time_ms))
        changes = [] if contents.last else await spent(begin.time_ms)
        for first in range(0, max(1, len(changes)), _CHANGES):
            part = QuotaEntry(epoch=begin.epoch, time_ms=begin.time_ms)
            part.changes.extend(changes[first : first + _CHANGES])
            await self.append(part)
            record.apply_entry(part)
        return record

    async def append(self, entry: QuotaEntry) -> int:
        """Append an entry; return its sequence.

        Raises:
            JournalMoved: another writer has taken over.
            BusError: it is not known whether it was appended.
        """
        payload, started_s = entry.SerializeToString(), time.perf_counter()
        self._last = await self._journal.append_entry(payload, after=self._last)
        metrics.quota_append_s.observe(time.perf_counter() - started_s)
        self._entries += 1
        self._bytes += len(payload)
        return self._last

    @property
    def needs_snapshot(self) -> bool:
        is_long = self._entries >= SNAPSHOT_ENTRIES or self._bytes >= SNAPSHOT_BYTES
        return is_long and self._bytes >= SNAPSHOT_COST * self._snapshot_bytes

    async def append_snapshot(self, record: QuotaRecord) -> None:
        """Append all of the record, and delete what was before. Raises as `append`.

        Why in parts, and not one message that replaces all: the record of a busy mesh is larger
        than a message may be. The parts replace nothing until the last of them is stored.
        """
        parts = snapshot_entries(record)
        sequences = [await self.append(part) for part in parts]
        self._entries, self._bytes = len(parts), sum(part.ByteSize() for part in parts)
        self._snapshot_bytes = self._bytes
        facts = {"parts": len(parts), "bytes": self._bytes, "reservations": len(record)}
        log.info("quota.snapshot", extra=facts)
        try:
            await self._journal.delete_entries(before=sequences[0])
        except BusError as error:
            # The next snapshot deletes them, and until then they are read in vain.
            log.info("quota.entries_not_deleted", extra={"why": str(error)})

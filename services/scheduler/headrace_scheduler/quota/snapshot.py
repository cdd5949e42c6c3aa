"""Snapshots of the record in parts that fit into messages, and the record from a journal. Pure.

A journal from which a keeper died while it wrote a snapshot, and its successor's record:

    entry          record = what was, and the entry
    part 0 of 2    collected
    epoch          the keeper has died: the parts are dropped; the entries before them are all there
    part 0 of 2    collected
    part 1 of 2    record = what the parts hold; all before part 0 may be deleted from now on
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.internal.v1.quota_pb2 import (
    QuotaAccount,
    QuotaEntry,
    QuotaReservation,
    QuotaSnapshot,
)
from headrace_scheduler.quota.record import QuotaRecord

PART_BYTES = 400_000
"""Of one part, about; the broker refuses messages above 1 MiB."""


def snapshot_entries(record: QuotaRecord, *, part_bytes: int = PART_BYTES) -> list[QuotaEntry]:
    """Return the entries that hold the whole record."""
    snapshots = list(_parts(record, part_bytes))
    for part, snapshot in enumerate(snapshots):
        snapshot.part, snapshot.parts = part, len(snapshots)
    return [
        QuotaEntry(
            epoch=record.epoch,
            time_ms=record.time_ms,
            usage_stream=record.usage_stream,
            usage_sequence=record.usage_sequence,
            snapshot=snapshot,
        )
        for snapshot in snapshots
    ]


def _parts(record: QuotaRecord, part_bytes: int) -> Iterator[QuotaSnapshot]:
    part, size = QuotaSnapshot(), 0
    for item in record.store():
        if size >= part_bytes:
            yield part
            part, size = QuotaSnapshot(), 0
        size += item.ByteSize()
        if isinstance(item, QuotaAccount):
            part.accounts.append(item)
        elif isinstance(item, QuotaReservation):
            part.reservations.append(item)
        else:
            part.settled.append(item)
    yield part


class Replay:
    """Makes the record of the entries of a journal, the oldest first."""

    def __init__(self) -> None:
        self.record = QuotaRecord()
        self._parts: list[QuotaEntry] = []

    def apply(self, entry: QuotaEntry) -> None:
        """Apply the next entry."""
        if not entry.HasField("snapshot"):
            self._parts = []
            self.record.apply_entry(entry)
            return
        if entry.snapshot.part != len(self._parts):
            self._parts = []
        if entry.snapshot.part == len(self._parts):
            self._parts.append(entry)
        if len(self._parts) == entry.snapshot.parts:
            self.record, self._parts = QuotaRecord.load(self._parts), []

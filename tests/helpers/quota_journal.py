"""A quota record, its journal, and short ways to change both as a keeper does."""

from __future__ import annotations

from headrace.internal.v1.access_pb2 import Limits, PriceRow
from headrace.internal.v1.quota_pb2 import (
    Confirm,
    LimitState,
    QuotaChange,
    QuotaEntry,
    QuotaRefusal,
    Release,
    Reserve,
)
from headrace.internal.v1.usage_pb2 import UsageRecord
from headrace_scheduler.quota.calendar import Calendar
from headrace_scheduler.quota.decision import decide, limit_states, settlement
from headrace_scheduler.quota.record import QuotaRecord
from headrace_scheduler.quota.snapshot import Replay, snapshot_entries
from headrace_scheduler.quota.terms import (
    KEY,
    KEY_MODEL,
    MODEL,
    TENANT,
    PriceHistory,
    Terms,
    limits_of,
)

START_MS = 1_800_000_000_000
"""2027-01-15 08:00:00 UTC."""


def terms(
    limits: Limits | None = None,
    *,
    key_limits: Limits | None = None,
    models: dict[str, Limits] | None = None,
    key_models: dict[str, Limits] | None = None,
    model: str = "m",
    zone: str = "",
    prices: tuple[PriceRow, ...] = (),
) -> Terms:
    of_tenant = limits_of(TENANT, limits or Limits(), MODEL, models or {}, model)
    of_key = limits_of(KEY, key_limits or Limits(), KEY_MODEL, key_models or {}, model)
    return Terms((*of_tenant, *of_key), Calendar(zone), PriceHistory(prices))


class Journal:
    """Changes of `record`, and the entries that made them."""

    def __init__(self, terms: Terms) -> None:
        self.record, self.terms = QuotaRecord(), terms
        self.entries: list[QuotaEntry] = []
        self.now_ms = START_MS
        self.record.advance(START_MS)

    def wait(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self.record.advance(self.now_ms)

    def append(self, *changes: QuotaChange, epoch: int = 0) -> None:
        entry = QuotaEntry(
            epoch=epoch or self.record.epoch,
            time_ms=self.now_ms,
            changes=changes,
        )
        self.record.apply_entry(entry)
        self.entries.append(QuotaEntry.FromString(entry.SerializeToString()))

    def reserve(
        self,
        name: str,
        tokens: int,
        *,
        output: int = 0,
        tenant: str = "acme",
        key: str = "k",
        model: str = "m",
        batch: bool = False,
        is_part: bool = False,
        lasts_s: float = 600.0,
    ) -> QuotaRefusal | None:
        """Reserve; return None if it is granted."""
        call = Reserve(
            reservation_id=name,
            tenant=tenant,
            key_id=key,
            model=model,
            input_tokens=tokens,
            output_tokens=output,
            batch=batch,
            is_part=is_part,
            deadline_ms=self.now_ms + round(lasts_s * 1000),
        )
        decided = decide(self.record, call, self.terms)
        if isinstance(decided, QuotaRefusal):
            return decided
        if decided is not None:
            self.append(decided)
        return None

    def confirm(self, name: str) -> None:
        self.append(QuotaChange(confirm=Confirm(reservation_id=name)))

    def release(self, name: str) -> None:
        self.append(QuotaChange(release=Release(reservation_id=name)))

    def settle(
        self,
        name: str,
        tokens: int,
        *,
        output: int = 0,
        cached: int = 0,
        batch_id: str = "",
        code: int = 0,
        request_id: str = "",
        arrival_ms: int = 0,
    ) -> bool:
        """Settle by a usage record; return whether anything changed."""
        usage = UsageRecord(
            reservation_id=name,
            tenant="acme",
            key_id="k",
            model="m",
            input_tokens=tokens,
            cached_input_tokens=cached,
            output_tokens=output,
            end_ms=self.now_ms,
            batch_id=batch_id,
            code=code,
            request_id=request_id,
            arrival_ms=arrival_ms or self.now_ms,
        )
        change = settlement(self.record, usage, self.terms)
        if change is not None:
            self.append(change)
        return change is not None

    def wait_ms(self, refusal: QuotaRefusal) -> int:
        return refusal.retry_after_ms - self.now_ms

    def states(self, record: QuotaRecord | None = None) -> list[LimitState]:
        record = record or self.record
        record.advance(self.now_ms)
        return limit_states(record, ("acme", "k", "m"), self.terms)

    def used(self) -> list[int]:
        return [state.used for state in self.states()]

    def snapshot(self, *, part_bytes: int = 400) -> list[QuotaEntry]:
        return snapshot_entries(self.record, part_bytes=part_bytes)

    def replayed(self) -> QuotaRecord:
        return replay(self.entries)


def replay(entries: list[QuotaEntry]) -> QuotaRecord:
    found = Replay()
    for entry in entries:
        found.apply(QuotaEntry.FromString(entry.SerializeToString()))
    return found.record

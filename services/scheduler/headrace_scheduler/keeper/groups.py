"""What one entry of the journal holds: the calls of some messages, and some usage. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from headrace.internal.v1.quota_pb2 import (
    QuotaCall,
    QuotaChange,
    QuotaEntry,
    QuotaRefusal,
    QuotaReply,
    QuotaRequest,
    QuotaResponse,
    Reserve,
)
from headrace.internal.v1.usage_pb2 import UsageRecord
from headrace_scheduler.quota.decision import decide, limit_states, settlement
from headrace_scheduler.quota.record import QuotaRecord
from headrace_scheduler.quota.terms import Terms

TermsOf = Callable[[str, str, str], Terms]


@dataclass(slots=True)
class Counts:
    """Of one group."""

    granted: int = 0
    repeated: int = 0
    settled: int = 0
    late: int = 0
    """Of these, those of callers with limits that nothing was reserved for."""
    refused: list[int] = field(default_factory=list)
    """Kinds of limits."""


class Group:
    """Decides on calls one after the other, as of one time; each changes the record at once.

    Why at once: the next call of the group must see it. The record is ahead of the journal until
    `entry` is appended; a keeper that cannot append it must drop the record.
    """

    def __init__(self, record: QuotaRecord, terms_of: TermsOf, now_ms: int) -> None:
        self._record, self._terms_of = record, terms_of
        self.counts = Counts()
        self.entry = QuotaEntry(epoch=record.epoch, time_ms=max(now_ms, record.time_ms))
        record.advance(self.entry.time_ms)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to append."""
        return not self.entry.changes and not self.entry.usage_stream

    def answer(self, request: QuotaRequest) -> QuotaResponse:
        """Decide on the calls of a message."""
        replies = map(self._answer, request.calls)
        return QuotaResponse(replies=replies, time_ms=self.entry.time_ms)

    def settle(self, usage: Iterable[UsageRecord]) -> None:
        """Settle what has ended."""
        for each in usage:
            terms = self._terms_of(each.tenant, each.key_id, each.model)
            is_known = self._record.reservation(each.reservation_id) is not None
            change = settlement(self._record, each, terms)
            if change is not None:
                self._change(change)
                self.counts.settled += 1
                self.counts.late += bool(terms.limits) and not is_known

    def read_up_to(self, stream: str, sequence: int) -> None:
        """Store that the usage is settled up to this message."""
        self.entry.usage_stream, self.entry.usage_sequence = stream, sequence
        self._record.usage_stream, self._record.usage_sequence = stream, sequence

    def _answer(self, call: QuotaCall) -> QuotaReply:
        match call.WhichOneof("call"):
            case "reserve":
                return self._reserve(call.reserve)
            case "describe":
                caller = (call.describe.tenant, call.describe.key_id, call.describe.model)
                return QuotaReply(
                    limits=limit_states(self._record, caller, self._terms_of(*caller))
                )
            case "confirm":
                found = self._record.reservation(call.confirm.reservation_id)
                if found is not None and not found.confirmed:
                    self._change(QuotaChange(confirm=call.confirm))
            case "release":
                if self._record.reservation(call.release.reservation_id) is not None:
                    self._change(QuotaChange(release=call.release))
        return QuotaReply()

    def _reserve(self, reserve: Reserve) -> QuotaReply:
        caller = (reserve.tenant, reserve.key_id, reserve.model)
        terms = self._terms_of(*caller)
        decided = decide(self._record, reserve, terms)
        refusal: QuotaRefusal | None = None
        if isinstance(decided, QuotaRefusal):
            refusal = decided
            self.counts.refused.append(refusal.kind)
        elif decided is not None:
            self._change(decided)
            self.counts.granted += 1
        else:
            self.counts.repeated += 1
        return QuotaReply(refusal=refusal, limits=limit_states(self._record, caller, terms))

    def _change(self, change: QuotaChange) -> None:
        self._record.apply(change)
        self.entry.changes.append(change)

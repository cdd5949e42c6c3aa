"""Compares rows of usage with their sums, and with the records that the broker still has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from headrace.bus.usage import StoredUsage, UsagePosition, UsageStream
from headrace.internal.v1.usage_pb2 import UsageRecord, UsageRecords
from headrace_control.base.accounts.statement import Account
from headrace_control.base.accounts.usage import (
    UnreadableUsage,
    Values,
    read_message,
    read_record,
)

AT_ONCE = 200
COMPARED = (
    *("tenant", "key_id", "person", "model", "kind", "code", "end_ms"),
    *("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"),
)
"""Columns of a row that must be what its record says."""


@dataclass(frozen=True, slots=True)
class Difference:
    kind: str
    """sums, settled, missing, changed, unreadable, gap or statement."""
    tenant: str
    detail: str
    repaired: bool = False


@dataclass(slots=True)
class Comparison:
    rows: int = 0
    records: int = 0
    differences: list[Difference] = field(default_factory=list)


class Checks(Protocol):
    async def count(self, since_ms: int, until_ms: int) -> int: ...

    async def differences(
        self, since_ms: int, until_ms: int, *, repair: bool = False
    ) -> Sequence[SumDifference]: ...

    async def settled_differences(
        self, since_ms: int, until_ms: int
    ) -> Sequence[SettledDifference]: ...


class SettledDifference(Protocol):
    @property
    def tenant(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def by_column(self) -> dict[str, int]: ...


class SumDifference(Protocol):
    @property
    def key(self) -> Values: ...
    @property
    def by_column(self) -> dict[str, int]: ...


class Unreadable(Protocol):
    @property
    def position(self) -> UsagePosition: ...
    @property
    def reason(self) -> str: ...


class Ledger(Protocol):
    async def position(self) -> UsagePosition | None: ...
    async def rows_of(self, records: Sequence[UsageRecord]) -> Sequence[Values | None]: ...
    async def restore(self, message: UsageRecords, at: UsagePosition) -> int: ...
    async def retry_unreadable(self) -> int: ...
    async def unreadable(self, limit: int = 1000) -> Sequence[Unreadable]: ...
    async def gaps(self) -> Sequence[tuple[int, int]]: ...


class Statements(Protocol):
    async def differences(self) -> Sequence[tuple[Account, str]]: ...


class Reconciliation:
    def __init__(
        self, bus: UsageStream, ledger: Ledger, checks: Checks, statements: Statements
    ) -> None:
        self._bus, self._ledger, self._checks = bus, ledger, checks
        self._statements = statements

    async def compare(self, since_ms: int, until_ms: int, *, repair: bool) -> Comparison:
        """Name every difference of requests that ended in this time, and of what is no row.

        Args:
            repair: store records without a row, and then make sums what the rows say.

        Raises:
            BusUnavailable: the broker is away.
        """
        found = Comparison()
        if repair:
            await self._ledger.retry_unreadable()
        async for message in self._stored_messages():
            await self._compare(message, (since_ms, until_ms), found, repair=repair)
        for each in await self._ledger.unreadable():
            at = each.position.sequence
            detail = f"position {at} of the stream: {each.reason}"
            found.differences.append(Difference("unreadable", "", detail))
        for first, last in await self._ledger.gaps():
            detail = f"positions {first} to {last} of the stream were gone before they were stored"
            found.differences.append(Difference("gap", "", detail))
        for differing in await self._checks.differences(since_ms, until_ms, repair=repair):
            tenant = str(differing.key["tenant"])
            detail = _sums_detail(differing)
            found.differences.append(Difference("sums", tenant, detail, repaired=repair))
        for unlike in await self._checks.settled_differences(since_ms, until_ms):
            detail = _settled_detail(unlike)
            found.differences.append(Difference("settled", unlike.tenant, detail))
        for account, detail in await self._statements.differences():
            found.differences.append(Difference("statement", account.tenant, detail))
        found.rows = await self._checks.count(since_ms, until_ms)
        return found

    async def _stored_messages(self) -> AsyncIterator[StoredUsage]:
        """Yield what the broker still has of what control has stored."""
        stored, at = await self._ledger.position(), None
        if stored is None:
            return
        while at is None or at.sequence < stored.sequence:
            messages = await self._bus.usage_after(at, max_messages=AT_ONCE, timeout_s=0)
            if not messages or messages[0].position.stream != stored.stream:
                return
            for message in messages:
                if message.position.sequence <= stored.sequence:
                    yield message
            at = messages[-1].position

    async def _compare(
        self,
        message: StoredUsage,
        ended: tuple[int, int],
        found: Comparison,
        *,
        repair: bool,
    ) -> None:
        published = _readable(message)
        records = [each for each in published.records if ended[0] <= each.end_ms < ended[1]]
        rows = await self._ledger.rows_of(records)
        found.records += len(records)
        for record, row in zip(records, rows, strict=True):
            name = f"{record.source} {record.sequence}, request {record.request_id}"
            if row is None:
                done = repair and await self._restore(record, published, message.position)
                detail = f"{name}: {record.output_tokens} output tokens have no row"
                found.differences.append(Difference("missing", record.tenant, detail, done))
            elif changed := _changed(row, record):
                detail = f"{name}: {changed}"
                found.differences.append(Difference("changed", record.tenant, detail))

    async def _restore(
        self, record: UsageRecord, published: UsageRecords, at: UsagePosition
    ) -> bool:
        """Store a record as a row; return whether it is one now."""
        of_it = UsageRecords(records=[record], model=published.model, epoch=published.epoch)
        return await self._ledger.restore(of_it, at) > 0


def _readable(message: StoredUsage) -> UsageRecords:
    """Return a message with those of its records that can be rows; the others are kept apart."""
    readable = []
    try:
        published = read_message(message.payload)
    except UnreadableUsage:
        return UsageRecords()
    for record in published.records:
        try:
            read_record(record)
        except UnreadableUsage:
            continue
        readable.append(record)
    return UsageRecords(records=readable, model=published.model, epoch=published.epoch)


def _changed(row: Values, record: UsageRecord) -> str:
    """Return how a row differs from its record; empty: it does not."""
    return ", ".join(
        f"{name} is {row[name]} in the row and {getattr(record, name)} in the record"
        for name in COMPARED
        if row[name] != getattr(record, name)
    )


def _settled_detail(differing: SettledDifference) -> str:
    more = ", ".join(f"{value:+d} {name}" for name, value in differing.by_column.items())
    of = f"the leader of {differing.model} in epoch {differing.epoch}"
    return f"compared with what {of} has settled, the rows have {more}"


def _sums_detail(differing: SumDifference) -> str:
    key = differing.key
    hour = datetime.fromtimestamp(key["hour_ms"] / 1000, UTC).strftime("%Y-%m-%dT%H:00Z")
    of = f"{hour}, model {key['model']}, key {key['key_id'] or '-'}"
    more = ", ".join(f"{value:+d} {name}" for name, value in differing.by_column.items())
    return f"{of}: the rows have {more}"

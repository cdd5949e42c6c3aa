"""Statements: what a tenant used in a month, what that costs, and how the sum comes about. Pure.

Amounts are integers of nano-units. A line is exact, and its amount is rounded once, to the smallest
unit of the currency; the total is the sum of the rounded lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from headrace.billing.currencies import rounded
from headrace_control.base.published_rows import milliseconds


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant, as it is billed: it outlives the tenant, and the name may be another's later."""

    account_id: str
    tenant: str
    time_zone: str
    currency: str
    create_time: datetime
    delete_time: datetime | None = None


def account_at(accounts: Sequence[Account], arrival_ms: int) -> Account | None:
    """Return whose a request is: that account, of one name's, the oldest first, which was opened
    last before the request arrived. None if there is no account."""
    if len(accounts) == 1:
        return accounts[0]
    begun = [each for each in accounts if milliseconds(each.create_time) <= arrival_ms]
    return begun[-1] if begun else next(iter(accounts), None)


@dataclass(frozen=True, slots=True)
class Line:
    """Requests of one model, kind and price; or a correction by hand, which has a `reason`."""

    model: str
    key_id: str = ""
    """Empty: of all keys, or without one."""
    kind: str = ""
    """completions, embeddings or rerank."""
    batch: bool = False
    corrects: str = ""
    """Closed month that it belongs to; empty: that of the statement."""
    reason: str = ""
    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    """Those of `input_tokens` that were not computed."""
    output_tokens: int = 0
    input_nanos: int = 0
    """Of a token, as the two that follow."""
    cached_input_nanos: int = 0
    output_nanos: int = 0
    exact_nanos: int = 0
    """What it costs, before it is rounded."""
    amount_nanos: int = 0
    unpriced: bool = False
    """It costs nothing because its model had no price when some of its requests ended."""


@dataclass(frozen=True, slots=True)
class Statement:
    account: Account
    month: str
    begin_ms: int
    end_ms: int
    as_of: datetime
    """Usage that was recorded later is not in it."""
    lines: tuple[Line, ...]
    sequence: int = 0
    """Without gaps, from 1, over all statements of the mesh; 0: it is open."""
    hash: str = ""
    """SHA-256 of `content`, in hexadecimal; empty: it is open."""

    @property
    def total_nanos(self) -> int:
        return sum(line.amount_nanos for line in self.lines)

    @property
    def exact_nanos(self) -> int:
        """The cost of all rows and corrections, before lines are rounded."""
        return sum(line.exact_nanos for line in self.lines)

    @property
    def is_open(self) -> bool:
        return self.sequence == 0


def difference(statement: Statement, requests: int, nanos: int, *, rows_since_ms: int) -> str:
    """Return how a closed statement differs from the rows that it covers; empty: it does not, or
    some of them are deleted.

    Args:
        requests, nanos: of the rows.
        rows_since_ms: rows that ended before may be deleted.
    """
    lines = [line for line in statement.lines if not line.reason]
    has_late = any(line.corrects for line in lines)
    if rows_since_ms and (statement.begin_ms < rows_since_ms or has_late):
        return ""
    billed = sum(line.requests for line in lines), sum(line.exact_nanos for line in lines)
    if billed == (requests, nanos):
        return ""
    return (
        f"statement {statement.sequence} of {statement.month} has {billed[0]} requests and"
        f" {billed[1]} nano-units; its rows are {requests} and {nanos}"
    )


def usage_line(currency: str, **fields: Any) -> Line:
    """Return a line of tokens, with its amounts."""
    line = Line(**fields)
    computed = line.input_tokens - line.cached_input_tokens
    exact = (
        computed * line.input_nanos
        + line.cached_input_tokens * line.cached_input_nanos
        + line.output_tokens * line.output_nanos
    )
    return Line(**fields, exact_nanos=exact, amount_nanos=rounded(exact, currency))


def correction_line(currency: str, *, month: str, nanos: int, reason: str) -> Line:
    amount = rounded(nanos, currency)
    return Line("", corrects=month, reason=reason, exact_nanos=nanos, amount_nanos=amount)


def in_order(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return lines as a statement has them: its own month first, then what it corrects."""
    return tuple(sorted(lines, key=_order))


def _order(line: Line) -> tuple[Any, ...]:
    prices = line.input_nanos, line.cached_input_nanos, line.output_nanos
    return line.corrects, line.reason, line.model, line.kind, line.batch, line.key_id, prices


def content(statement: Statement) -> str:
    """Return what is kept of a closed statement, as JSON whose bytes follow from the statement."""
    account = statement.account
    fields = {
        "sequence": statement.sequence,
        "account_id": account.account_id,
        "tenant": account.tenant,
        "tenant_create_time": account.create_time.isoformat(),
        "month": statement.month,
        "time_zone": account.time_zone,
        "begin_ms": statement.begin_ms,
        "end_ms": statement.end_ms,
        "as_of": statement.as_of.isoformat(),
        "currency": account.currency,
        "total_nanos": statement.total_nanos,
        "lines": [asdict(line) for line in statement.lines],
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def closed_statement(text: str) -> Statement:
    """Return the statement of its `content`."""
    fields = json.loads(text)
    created = datetime.fromisoformat(fields["tenant_create_time"])
    names = ("account_id", "tenant", "time_zone", "currency")
    return Statement(
        Account(**{name: fields[name] for name in names}, create_time=created),
        month=fields["month"],
        begin_ms=fields["begin_ms"],
        end_ms=fields["end_ms"],
        as_of=datetime.fromisoformat(fields["as_of"]),
        lines=tuple(Line(**line) for line in fields["lines"]),
        sequence=fields["sequence"],
        hash=hash_of(text),
    )

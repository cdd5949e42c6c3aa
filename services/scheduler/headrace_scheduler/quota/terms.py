"""What a caller may use, and what it costs. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from headrace.internal.v1.access_pb2 import Limits, PriceRow
from headrace.internal.v1.quota_pb2 import LimitScope
from headrace_scheduler.quota.accounts import (
    BATCH_TOKENS_PER_DAY,
    BUDGET_PER_MONTH,
    CONCURRENT_REQUESTS,
    REQUESTS_PER_DAY,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_DAY,
    TOKENS_PER_MINUTE,
)
from headrace_scheduler.quota.calendar import Calendar

TENANT = int(LimitScope.LIMIT_SCOPE_TENANT)
KEY = int(LimitScope.LIMIT_SCOPE_KEY)
MODEL = int(LimitScope.LIMIT_SCOPE_MODEL)
KEY_MODEL = int(LimitScope.LIMIT_SCOPE_KEY_MODEL)

_FIELDS = {
    REQUESTS_PER_MINUTE: "requests_per_minute",
    TOKENS_PER_MINUTE: "tokens_per_minute",
    REQUESTS_PER_DAY: "requests_per_day",
    TOKENS_PER_DAY: "tokens_per_day",
    CONCURRENT_REQUESTS: "concurrent_requests",
    BATCH_TOKENS_PER_DAY: "batch_tokens_per_day",
    BUDGET_PER_MONTH: "budget_nanos_per_month",
}


MAX_COST_NANOS = 10**17
"""Of one request: what costs more has too many tokens, and would be larger than an entry of the
journal can say."""


class Limit(NamedTuple):
    kind: int
    scope: int
    model: str
    """Empty: of all models together."""
    amount: int


class Price(NamedTuple):
    """Nano-units for each token."""

    input_nanos: int
    cached_input_nanos: int
    output_nanos: int

    def at_most(self, input_tokens: int, output_tokens: int) -> int:
        """Return the cost if nothing comes from a cache."""
        dearest = max(self.input_nanos, self.cached_input_nanos)
        return min(input_tokens * dearest + output_tokens * self.output_nanos, MAX_COST_NANOS)

    def of(self, input_tokens: int, cached_input_tokens: int, output_tokens: int) -> int:
        """Return the cost; `input_tokens` include those that came from a cache."""
        cached = min(cached_input_tokens, input_tokens)
        computed = (input_tokens - cached) * self.input_nanos
        cost = computed + cached * self.cached_input_nanos + output_tokens * self.output_nanos
        return min(cost, MAX_COST_NANOS)


FREE = Price(0, 0, 0)


class PriceHistory:
    """The prices of one model in one currency."""

    def __init__(self, rows: Iterable[PriceRow] = ()) -> None:
        ordered = sorted(rows, key=lambda row: row.valid_from_ms)
        self._from_ms = [row.valid_from_ms for row in ordered]
        self._prices = [
            Price(row.input_nanos, row.cached_input_nanos, row.output_nanos) for row in ordered
        ]

    def at(self, at_ms: int) -> Price:
        """Return the price of that time; FREE before the first."""
        found = bisect_right(self._from_ms, at_ms)
        return self._prices[found - 1] if found else FREE


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one key of one tenant with one model."""

    limits: tuple[Limit, ...]
    calendar: Calendar
    prices: PriceHistory
    create_ms: int | None = 0
    """When the tenant was created; None: there is none of this name. 0: not known, as control of
    an earlier version does not say it."""

    def owner(self, tenant: str, arrival_ms: int | None = None) -> str:
        """Return whose accounts the tenant's use is charged to.

        A tenant that takes a deleted one's name has accounts of its own; what arrived before it was
        created is not charged to it.
        """
        if self.create_ms == 0:
            return tenant
        if self.create_ms is None or (arrival_ms is not None and arrival_ms < self.create_ms):
            return f"{tenant}@"
        return f"{tenant}@{self.create_ms}"


def limits_of(
    scope: int, limits: Limits, model_scope: int, model_limits: Mapping[str, Limits], model: str
) -> Iterator[Limit]:
    """Yield the limits of a tenant or a key that apply to a model."""
    yield from _set_limits(limits, scope, "")
    if (of_model := model_limits.get(model)) is not None:
        yield from _set_limits(of_model, model_scope, model)


def _set_limits(limits: Limits, scope: int, model: str) -> Iterator[Limit]:
    for kind, field in _FIELDS.items():
        if amount := getattr(limits, field):
            yield Limit(kind, scope, model, amount)

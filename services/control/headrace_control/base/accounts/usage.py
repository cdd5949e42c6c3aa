"""Usage records as rows of accounts: what is read, and what it costs. Pure.

values = read_record(payload)          # {"source": "requests:17…", "sequence": 7, …}
values |= priced(values, TokenPrice(0, 1000, 100, 2000), "USD")
values["cost_nanos"]                   # 1000 a token of input, 100 cached, 2000 of output
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.message import DecodeError

from headrace.internal.v1.usage_pb2 import UsageKind, UsageRecord, UsageRecords

HOUR_MS = 3_600_000
MAX_TOKENS = 2**40
"""Of one record: what is more is a mistake, and would spoil sums."""
MAX_CHARACTERS = 256
"""Of a text: PostgreSQL's indices hold no longer ones."""
MAX_MS = 2**47
MAX_NANOS = 2**63 - 1
MAX_COST_NANOS = 10**17
"""Of one record, as of MAX_TOKENS: what is more is a mistake, and would spoil sums."""
WHOLE_TENANT = "*"
"""In place of a key's id: all of a tenant, with and without keys. No key has this id."""
THRESHOLDS = (50, 80, 100)
"""Percent of a month's budget at which there is an event."""

TEXTS = (
    *("source", "request_id", "tenant", "key_id", "person", "model", "version"),
    *("batch_id", "engine", "upstream_currency"),
)
TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
NUMBERS = (
    *("sequence", "priority", "kind", "code", "arrival_ms", "end_ms", "queue_ms"),
    *("first_token_ms", "attempts", "batch_line", "upstream_cost_nanos", "n"),
)
FLAGS = ("cache_hit", "detached")
SUMS = ("requests", *TOKENS)
COSTS = ("input_cost_nanos", "cached_cost_nanos", "output_cost_nanos")
HOUR_KEY = ("tenant", "hour_ms", "model", "key_id", "person", "batch", "kind", "currency")

Values = dict[str, Any]
"""A row by its columns."""


class UnreadableUsage(ValueError):
    """The record cannot be a row; its text says why."""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What a token costs from a time on, in nano-units (1e-9)."""

    valid_from_ms: int
    input_nanos: int
    cached_input_nanos: int
    output_nanos: int


FREE = TokenPrice(0, 0, 0, 0)
"""Of a model without a price."""


def read_message(payload: bytes) -> UsageRecords:
    """Return a message of the stream.

    Raises:
        UnreadableUsage: it is none.
    """
    try:
        return UsageRecords.FromString(payload)
    except DecodeError:
        raise UnreadableUsage("the message holds no usage records") from None


def read_record(record: UsageRecord) -> Values:
    """Return a usage record as the values of its row, without its price.

    Raises:
        UnreadableUsage: it has a value that no request can have.
    """
    values: Values = dict(zip(_READ, _read(record), strict=True))
    for name in ("source", "tenant", "model"):
        if not values[name]:
            raise UnreadableUsage(f"{name} is empty")
    for name in TEXTS:
        if len(values[name]) > MAX_CHARACTERS:
            raise UnreadableUsage(
                f"{name} has {len(values[name])} characters; at most {MAX_CHARACTERS} are possible"
            )
    for name in TOKENS:
        if values[name] > MAX_TOKENS:
            raise UnreadableUsage(f"{name} is {values[name]}; at most {MAX_TOKENS} are possible")
    if values["cached_input_tokens"] > values["input_tokens"]:
        raise UnreadableUsage(
            f"cached_input_tokens is {values['cached_input_tokens']}, more than input_tokens,"
            f" {values['input_tokens']}"
        )
    if not 0 < values["end_ms"] < MAX_MS or not 0 <= values["arrival_ms"] < MAX_MS:
        raise UnreadableUsage(f"it ended at {values['end_ms']} ms, which is no time")
    if values["sequence"] > MAX_NANOS or values["upstream_cost_nanos"] > MAX_NANOS:
        raise UnreadableUsage("sequence or upstream_cost_nanos is larger than 64 bits hold")
    return values


_READ = (*TEXTS, *TOKENS, *NUMBERS, *FLAGS)
_read = attrgetter(*_READ)


def priced(values: Mapping[str, Any], price: TokenPrice, currency: str) -> Values:
    """Return the columns of a row that its price gives.

    Raises:
        UnreadableUsage: it costs more than MAX_COST_NANOS.
    """
    costs = costs_of(values, price)
    cost = sum(costs)
    if cost > MAX_COST_NANOS:
        raise UnreadableUsage(f"it costs {cost} nano-units; at most {MAX_COST_NANOS} are possible")
    return {
        "currency": currency,
        "input_nanos": price.input_nanos,
        "cached_nanos": price.cached_input_nanos,
        "output_nanos": price.output_nanos,
        "cost_nanos": cost,
    }


def costs_of(values: Mapping[str, Any], price: TokenPrice) -> tuple[int, int, int]:
    """Return what the computed input, the cached input and the output cost, in nano-units."""
    cached = values["cached_input_tokens"]
    return (
        (values["input_tokens"] - cached) * price.input_nanos,
        cached * price.cached_input_nanos,
        values["output_tokens"] * price.output_nanos,
    )


def price_at(prices: Sequence[TokenPrice], time_ms: int) -> TokenPrice:
    """Return the price that is valid at a time, of one model's, the oldest first."""
    at = bisect_right(prices, time_ms, key=lambda price: price.valid_from_ms)
    return prices[at - 1] if at else FREE


def hours_of(rows: Sequence[Mapping[str, Any]]) -> list[Values]:
    """Return the sums of rows for each key of the roll-up, in the order of the keys."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        key = (
            row["tenant"],
            row["end_ms"] // HOUR_MS * HOUR_MS,
            *(row["model"], row["key_id"], row["person"]),
            *(bool(row["batch_id"]), row["kind"], row["currency"]),
        )
        price = TokenPrice(0, row["input_nanos"], row["cached_nanos"], row["output_nanos"])
        added = (1, *(row[name] for name in TOKENS), *costs_of(row, price))
        found = sums.get(key)
        sums[key] = (
            list(added) if found is None else [a + b for a, b in zip(found, added, strict=True)]
        )
    names = (*HOUR_KEY, *SUMS, *COSTS)
    # Why sorted: two transactions that take the same rows in another order wait for each other.
    return [
        dict(zip(names, (*key, *(min(each, MAX_NANOS) for each in sums[key])), strict=True))
        for key in sorted(sums)
    ]


def month_of(time_ms: int, zone: str) -> str:
    """Return the month of a time in a time zone, as 2026-11."""
    return _month(time_ms // _QUARTER_MS, zone)


_QUARTER_MS = 900_000
"""Of an hour: in every time zone months begin with one."""


@lru_cache(maxsize=4096)
def _month(quarter: int, zone: str) -> str:
    begin_s = quarter * (_QUARTER_MS // 1000)
    return datetime.fromtimestamp(begin_s, ZoneInfo(zone) if zone else UTC).strftime("%Y-%m")


def reached(cost_nanos: int, budget_nanos: int) -> int:
    """Return the highest of THRESHOLDS that a cost has reached; 0: none, or there is no budget."""
    if not budget_nanos:
        return 0
    return max((p for p in THRESHOLDS if cost_nanos * 100 >= p * budget_nanos), default=0)


def kind_name(kind: int) -> str:
    """Return `completions`, `embeddings` or `rerank`."""
    if kind not in UsageKind.values():
        return str(kind)
    return UsageKind.Name(UsageKind.ValueType(kind)).removeprefix("USAGE_KIND_").lower()

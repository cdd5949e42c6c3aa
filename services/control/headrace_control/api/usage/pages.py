"""Answers of OpenAI's usage API: pages of buckets, made from sums. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from headrace_control.api.usage.query import UsageQuery
from headrace_control.base.accounts.usage import COSTS, Values

Json = dict[str, Any]
GROUPS = {
    "project_id": "tenant",
    "user_id": "person",
    "api_key_id": "key_id",
    "model": "model",
    "batch": "batch",
}
"""OpenAI's names of what sums are grouped by, and ours."""
_NANO = 10**9
_LINES = {
    "input_cost_nanos": ("input_tokens", "input_tokens"),
    "cached_cost_nanos": ("cached_input_tokens", "cached_input_tokens"),
    "output_cost_nanos": ("output_tokens", "output_tokens"),
}
"""By the column of the cost: the name of its line item, and the column of its tokens."""


def usage_page(query: UsageQuery, kind: str, sums: Iterable[Values]) -> Json:
    """Return the page of a kind of usage.

    Args:
        sums: for each minute, hour or day, in their order.
    """
    of_kind = _completions if kind == "completions" else _others

    def results(rows: Sequence[Values]) -> Iterator[Json]:
        for row in rows:
            grouped = _groups(query, row, ("project_id", "user_id", "api_key_id", "model"))
            yield {"object": f"organization.usage.{kind}.result", **of_kind(row), **grouped} | (
                _batch(query, row) if kind == "completions" else {}
            )

    return _page(query, sums, results)


def costs_page(query: UsageQuery, sums: Iterable[Values]) -> Json:
    """Return the page of costs; `sums` as `usage_page`, of each currency."""
    by_line = "line_item" in query.group_by

    def results(rows: Sequence[Values]) -> Iterator[Json]:
        for row in rows:
            grouped = _groups(query, row, ("project_id", "user_id", "api_key_id"))
            for name, tokens, nanos in _lines(row) if by_line else ((None, None, _cost(row)),):
                yield {
                    "object": "organization.costs.result",
                    "amount": {"value": nanos / _NANO, "currency": row["currency"].lower()},
                    "line_item": name,
                    "quantity": tokens,
                    "quantity_unit": None if tokens is None else "tokens",
                    **grouped,
                }

    return _page(query, sums, results)


def _page(
    query: UsageQuery,
    sums: Iterable[Values],
    results: Callable[[Sequence[Values]], Iterable[Json]],
) -> Json:
    begins = [begin for begin, _ in query.buckets]
    rows: list[list[Values]] = [[] for _ in begins]
    for each in sums:
        rows[max(0, bisect_right(begins, each["begin_ms"] // 1000) - 1)].append(each)
    data = [
        {
            "object": "bucket",
            "start_time": begin,
            "end_time": end,
            "results": list(results(found)),
        }
        for (begin, end), found in zip(query.buckets, rows, strict=True)
    ]
    more = bool(query.next_page)
    return {"object": "page", "data": data, "has_more": more, "next_page": query.next_page or None}


def _completions(row: Values) -> Json:
    return {
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "input_cached_tokens": row["cached_input_tokens"],
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": row["requests"],
    }


def _others(row: Values) -> Json:
    return {"input_tokens": row["input_tokens"], "num_model_requests": row["requests"]}


def _groups(query: UsageQuery, row: Values, names: Sequence[str]) -> Json:
    return {name: row[GROUPS[name]] if name in query.group_by else None for name in names}


def _batch(query: UsageQuery, row: Values) -> Json:
    return {"batch": row["batch"] if "batch" in query.group_by else None, "service_tier": None}


def _cost(row: Values) -> int:
    return sum(row[name] for name in COSTS)


def _lines(row: Values) -> Iterator[tuple[str, int, int]]:
    """Yield each line item: its name, its tokens, and its cost in nano-units."""
    for column, (name, tokens) in _LINES.items():
        count = row[tokens]
        if column == "input_cost_nanos":
            count -= row["cached_input_tokens"]
        if count or row[column]:
            yield f"{row['model']}, {name}", count, row[column]

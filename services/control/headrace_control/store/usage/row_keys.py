"""The keys of rows: a record whose key is another request's becomes a row of its own.

A broker that loses its power may forget requests, and give their sequences to others: then two
requests have the same source and sequence. The second one's row has a source that is made of its
request, so that it is the same each time its record comes:

    requests:2026-11-01T... 7   request req_a   "requests:2026-11-01T..." 7
    requests:2026-11-01T... 7   request req_b   "requests:2026-11-01T...~5f3a..." 7
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.internal.v1.usage_pb2 import UsageRecord
from headrace_control.base.accounts.usage import Values
from headrace_control.store.database.billing_tables import usage
from headrace_control.store.database.published import in_parts

Key = tuple[str, int]
Request = tuple[str, str, int]
"""Tenant, id and time of arrival: what two records of one request have in common."""


@dataclass(frozen=True, slots=True)
class NewRows:
    rows: list[Values]
    """That the database does not have, each once, in the order of their keys."""
    renamed: int
    """How many of these got a source of their own."""
    repeated: list[Values]
    """Records whose rows are of another leadership."""


async def new_rows(connection: AsyncConnection, records: Sequence[Values]) -> NewRows:
    """Return what becomes of records, which name their leaderships. Those that get a source of
    their own have it then."""
    stored = await _rows_at(connection, map(_key_of, records))
    first = {key: _request_of(row) for key, row in stored.items()}
    new: dict[Key, Values] = {}
    others: dict[Key, Values] = {}
    for row in records:
        key, request = _key_of(row), _request_of(row)
        if first.setdefault(key, request) != request:
            row["source"] = _own_source(row)
            others.setdefault(_key_of(row), row)
        elif key not in stored:
            new.setdefault(key, row)
    known = await _rows_at(connection, others)
    for key in known:
        del others[key]
    new |= others
    led_by = {key: row["leadership"] for key, row in (stored | known | new).items()}
    repeated = [row for row in records if row["leadership"] != led_by[_key_of(row)]]
    return NewRows([new[key] for key in sorted(new)], len(others), repeated)


async def rows_of(
    connection: AsyncConnection, records: Sequence[UsageRecord]
) -> list[Values | None]:
    """Return the row that each of some records has."""
    stored = await _rows_at(connection, ((each.source, each.sequence) for each in records))
    found: list[Values | None] = []
    for record in records:
        values = {name: getattr(record, name) for name in _NAMES}
        row = stored.get(_key_of(values))
        if row is not None and _request_of(row) != _request_of(values):
            key = _own_source(values), record.sequence
            row = (await _rows_at(connection, [key])).get(key)
        found.append(row)
    return found


async def _rows_at(connection: AsyncConnection, keys: Iterable[Key]) -> dict[Key, Values]:
    by_source: dict[str, list[int]] = {}
    for source, sequence in keys:
        by_source.setdefault(source, []).append(sequence)
    found: dict[Key, Values] = {}
    for source, sequences in by_source.items():
        for some in in_parts(sequences):
            query = sa.select(usage).where(usage.c.source == source)
            rows = await connection.execute(query.where(usage.c.sequence.in_(some)))
            found |= {(row.source, row.sequence): dict(row._mapping) for row in rows}
    return found


_NAMES = ("source", "sequence", "tenant", "request_id", "arrival_ms")


def _key_of(row: Mapping[str, Any]) -> Key:
    return row["source"], row["sequence"]


def _request_of(row: Mapping[str, Any]) -> Request:
    return row["tenant"], row["request_id"], row["arrival_ms"]


def _own_source(row: Mapping[str, Any]) -> str:
    name = "\0".join(map(str, _request_of(row))).encode()
    return f"{row['source']}~{blake2b(name, digest_size=8).hexdigest()}"

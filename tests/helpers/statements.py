"""What tests of statements share: times, usage that is recorded, and statements of tenant acme."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headrace.billing.money import NANOS
from headrace_control.base.accounts.statement import Statement
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock
from helpers.usage_records import usage_message

CENT = NANOS // 100


def at(text: str) -> int:
    """Return a time in UTC, as Unix milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def go_to(clock: TestClock, text: str) -> None:
    clock.time_s = at(text) / 1000


class Recorder:
    """Records usage, each record at the next position."""

    def __init__(self, store: Store) -> None:
        self._store, self._position = store, 0

    async def __call__(self, ended: str, **fields: Any) -> None:
        self._position += 1
        times = {"arrival_ms": at(ended), "end_ms": at(ended)}
        await self._store.usage.record([usage_message(self._position, **(times | fields))])


async def statement(store: Store, month: str, tenant: str = "acme", **options: Any) -> Statement:
    return await store.statements.get(await store.statements.account(tenant), month, **options)


async def close(store: Store, month: str, tenant: str = "acme") -> Statement:
    return await store.statements.close(await store.statements.account(tenant), month, by=ROOT)


def counts(found: Statement) -> list[tuple[str, str, int]]:
    return [(line.corrects, line.model, line.requests) for line in found.lines]

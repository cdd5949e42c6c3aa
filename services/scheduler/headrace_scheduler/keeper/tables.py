"""Limits, time zones and prices, as control publishes them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.auth.known_rows import KnownRows
from headrace.auth.tables import AccessTables
from headrace.bus import Tables
from headrace.bus.subjects import KEYS_TABLE, PRICES_TABLE, TENANTS_TABLE
from headrace.clock import Clock
from headrace.internal.v1.access_pb2 import PriceRow
from headrace_scheduler.quota.calendar import Calendar
from headrace_scheduler.quota.terms import (
    KEY,
    KEY_MODEL,
    MODEL,
    TENANT,
    Limit,
    PriceHistory,
    Terms,
    limits_of,
)

log = logging.getLogger(__name__)

USUAL_CURRENCY = "USD"
MAX_TERMS = 100_000
"""Of as many callers and models terms are kept made; then they are made again."""
NO_PRICES = PriceHistory()


class QuotaTables:
    """Makes the terms of a caller; those of callers without limits have none."""

    def __init__(self, bus: Tables, clock: Clock) -> None:
        self._bus = bus
        self._access = AccessTables(bus, clock, [TENANTS_TABLE, KEYS_TABLE])
        self._prices = KnownRows(PriceRow.FromString, _unreadable)
        self._histories: dict[tuple[str, str], PriceHistory] = {}
        self._calendars: dict[str, Calendar] = {}
        self._terms: dict[tuple[str, str, str], Terms] = {}

    @property
    def are_whole(self) -> bool:
        """Whether all tables have been read: before, a caller would seem to have no limits."""
        return self._access.not_ready_reason() is None and self._prices.is_whole

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch the tables for the length of a `with`."""

        def on_prices(rows: dict[str, bytes]) -> None:
            self._prices.on_table(rows)
            self._on_prices()

        def on_price(key: str, row: bytes | None) -> None:
            self._prices.on_row(key, row)
            self._on_prices()

        async with self._access.watching(self._terms.clear):
            watch = await self._bus.watch_table(PRICES_TABLE, on_prices, on_price)
            try:
                yield
            finally:
                await watch.close()

    def limited_tenants(self) -> set[str]:
        """Return the tenants that have limits, or keys with limits."""
        return self._access.limited_tenants()

    def terms(self, tenant: str, key_id: str, model: str) -> Terms:
        """Return what applies to a key of a tenant, or to the tenant alone, with a model."""
        caller = (tenant, key_id, model)
        if (found := self._terms.get(caller)) is None:
            if len(self._terms) >= MAX_TERMS:
                self._terms.clear()
            found = self._terms[caller] = self._make_terms(tenant, key_id, model)
        return found

    def _make_terms(self, tenant: str, key_id: str, model: str) -> Terms:
        limits: list[Limit] = []
        create_ms: int | None = None
        zone, currency = "", USUAL_CURRENCY
        if (of_tenant := self._access.tenant(tenant)) is not None:
            row = of_tenant.row
            create_ms = row.create_ms
            zone, currency = row.time_zone, row.currency or USUAL_CURRENCY
            limits += limits_of(TENANT, row.limits, MODEL, of_tenant.model_limits, model)
        if key_id and (key := self._access.key(key_id)) is not None:
            limits += limits_of(KEY, key.limits, KEY_MODEL, key.model_limits, model)
        prices = self._histories.get((model, currency), NO_PRICES)
        return Terms(tuple(limits), self._calendar(zone), prices, create_ms)

    def _calendar(self, zone: str) -> Calendar:
        if (found := self._calendars.get(zone)) is None:
            try:
                found = Calendar(zone)
            except ValueError as error:
                log.error("quota.time_zone_unknown", extra={"why": str(error)})
                found = Calendar()
            self._calendars[zone] = found
        return found

    def _on_prices(self) -> None:
        rows = defaultdict[tuple[str, str], list[PriceRow]](list)
        for row in self._prices.rows.values():
            rows[row.model, row.currency].append(row)
        self._histories = {key: PriceHistory(of_key) for key, of_key in rows.items()}
        self._terms.clear()


def _unreadable(key: str, error: str) -> None:
    log.error("quota.price_unreadable", extra={"key": key, "error": error})

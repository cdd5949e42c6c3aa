"""Warns of models that are used without a price, where others have some."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.accounts.usage import FREE, Values
from headrace_control.store.database.billing_tables import prices
from headrace_control.store.usage.terms import Terms

log = logging.getLogger(__name__)


class UnpricedModels:
    """Those that were warned about, in this process: each once."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        """Models and currencies."""

    async def warn(self, connection: AsyncConnection, rows: Sequence[Values], terms: Terms) -> None:
        """Warn of the models of billed rows, if they are new."""
        found = {(row["model"], terms.currency(row)) for row in rows if terms.price(row) is FREE}
        if not (new := found - self._known):
            return
        if await connection.scalar(sa.select(prices.c.price_id).limit(1)) is None:
            return
        self._known |= new
        for model, currency in sorted(new):
            facts = {"model": model, "currency": currency}
            log.warning("usage.unpriced", extra=facts | {"why": "no price: it costs nothing"})

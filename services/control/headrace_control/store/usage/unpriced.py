"""Warns of models that are used without a price, where others have some."""

from __future__ import annotations

import logging
from collections.abc import Set

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.store.database.billing_tables import prices

log = logging.getLogger(__name__)


class UnpricedModels:
    """Those that were warned about, in this process: each once."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        """Models and currencies."""

    async def warn(self, connection: AsyncConnection, found: Set[tuple[str, str]]) -> None:
        """Warn of models and currencies, if they are new."""
        if not (new := found - self._known):
            return
        if await connection.scalar(sa.select(prices.c.price_id).limit(1)) is None:
            return
        self._known |= new
        for model, currency in sorted(new):
            facts = {"model": model, "currency": currency}
            log.warning("usage.unpriced", extra=facts | {"why": "no price: it costs nothing"})

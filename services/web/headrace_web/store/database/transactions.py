"""Transactions of web's database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headrace.clock import Clock
from headrace.database.engine import WRITES
from headrace.database.failures import unavailable


class Database:
    """Opens transactions. Of one process, those that write follow one another."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self.engine, self._clock = engine, clock
        self._writing = asyncio.Lock()

    def now_ms(self) -> int:
        return int(self._clock.unix_s() * 1000)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads."""
        async with unavailable(), self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that writes; committed unless the body raises."""
        async with unavailable(), self._writing, self.engine.connect() as plain:
            connection = await plain.execution_options(**{WRITES: True})
            async with connection.begin():
                yield connection

"""Control's database: how it is opened, and the schema that it has."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from headrace.database import engine
from headrace.database.failures import unavailable
from headrace.database.schema import Schema
from headrace_control.store.database.tables import facts

SCHEMA = Schema(Path(__file__).parents[1] / "migrations", facts)


def open_engine(url: str) -> AsyncEngine:
    """Return an engine for a URL of `database_url`; errors are those of `headrace.database`."""
    return engine.open_engine(url, application="headrace_control")


async def upgrade(url: str) -> tuple[str, str]:
    """Bring a database to the schema of this version; return that which it had, and has now.

    Raises:
        SchemaMismatch: its schema is newer.
        ControlUnavailable: it cannot be reached.
    """
    opened = open_engine(url)
    try:
        async with unavailable():
            return await SCHEMA.upgrade(opened), SCHEMA.newest_revision()
    finally:
        await opened.dispose()

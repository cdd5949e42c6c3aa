"""Web's database: how it is opened, and the schema that it has."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from headrace.database import engine
from headrace.database.schema import Schema
from headrace_web.store.database.metadata import NAMESPACE
from headrace_web.store.database.tables import facts

SCHEMA = Schema(Path(__file__).parents[1] / "migrations", facts, NAMESPACE)


def open_engine(url: str) -> AsyncEngine:
    """Return an engine for a URL of `database_url`; errors are those of `headrace.database`."""
    return engine.open_engine(url, application="headrace_web", schema=NAMESPACE)

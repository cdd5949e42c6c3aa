"""Every test here runs with SQLite and with PostgreSQL: the store is the same with both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace_web.store import Store
from helpers.control_store import TestClock


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/web/web.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(database_url: str, clock: TestClock) -> AsyncIterator[Store]:
    opened = await Store.open(database_url, upgrade=True, clock=clock)
    yield opened
    await opened.close()

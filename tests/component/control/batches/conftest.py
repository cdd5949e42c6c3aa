"""Batches over a real database, with scripted gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace_control.base.records import Tenant
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control/headrace.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(database_url: str, clock: TestClock) -> AsyncIterator[Store]:
    """With the tenant acme."""
    opened = await Store.open(database_url, upgrade=True, clock=clock)
    await opened.tenants.create(Tenant("acme"), by=ROOT)
    yield opened
    await opened.close()

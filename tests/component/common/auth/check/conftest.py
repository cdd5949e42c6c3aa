"""A mesh that requires keys, and its tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.auth.settings import AccessSettings
from headrace.bus import Bus
from helpers.access_tables import PublishedTables, write_peppers, write_secret
from helpers.checked_server import EDGE


@pytest.fixture
def settings(tmp_path: Path) -> AccessSettings:
    return AccessSettings(
        auth="keys",
        peppers_file=write_peppers(tmp_path / "peppers"),
        edge_secret_file=write_secret(tmp_path / "edge", EDGE),
    )


@pytest.fixture
async def tables(bus: Bus) -> PublishedTables:
    tables = PublishedTables(bus)
    await tables.tenant("a")
    await tables.stamp()
    return tables

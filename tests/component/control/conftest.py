"""Control as a process of its own, over a real broker, with keys required."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.testing.nats_server import NatsServer, nats_server
from helpers.control_api import ControlApi
from helpers.control_process import control_process, serving, write_peppers


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def admin(nats: NatsServer, tmp_path: Path) -> AsyncIterator[ControlApi]:
    """The API as an operator of the mesh calls it."""
    async with control_process(
        tmp_path,
        nats.url,
        auth="keys",
        peppers_file=write_peppers(tmp_path / "peppers", "a"),
        bootstrap_keys_dir=tmp_path,
    ) as running:
        await serving(running)
        key = (tmp_path / "admin.key").read_text().strip()
        async with ControlApi(running.ports["grpc"], key) as api:
            yield api

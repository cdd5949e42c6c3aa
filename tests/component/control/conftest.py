"""Control as a process of its own, over a real broker, with keys required."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.testing.nats_server import NatsServer, nats_server
from helpers.control_api import ControlApi
from helpers.control_process import control_process, serving, write_peppers


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path / "nats") as running:
        yield running


@dataclass(frozen=True)
class KeyedControl:
    """A control process that requires keys, and its first one."""

    port: int
    admin_key: str


@pytest.fixture
async def keyed_control(nats: NatsServer, tmp_path: Path) -> AsyncIterator[KeyedControl]:
    async with control_process(
        tmp_path,
        nats.url,
        auth="keys",
        peppers_file=write_peppers(tmp_path / "peppers", "a"),
        bootstrap_keys_dir=tmp_path,
    ) as running:
        await serving(running)
        key = (tmp_path / "admin.key").read_text().strip()
        yield KeyedControl(running.ports["grpc"], key)


@pytest.fixture
async def admin(keyed_control: KeyedControl) -> AsyncIterator[ControlApi]:
    """The API as an operator of the mesh calls it."""
    async with ControlApi(keyed_control.port, keyed_control.admin_key) as api:
        yield api

"""Fixtures for real servers. Every test that wants a bus gets a broker of its own."""

from __future__ import annotations

import os

# Read when Triton is first imported, by whichever library that is: no test needs a GPU.
os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.bus.jetstream import JetStreamBus, connect
from headrace.testing.nats_server import NatsServer, nats_server


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A real nats-server, empty."""
    async with nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def nats_url(nats: NatsServer) -> str:
    return nats.url


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[JetStreamBus]:
    """A connection to `nats`, with all streams and buckets."""
    connection = await connect(nats_url, name="test")
    yield connection
    await connection.close()

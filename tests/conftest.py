"""Fixtures for real servers. Every test that wants a bus gets a broker of its own."""

from __future__ import annotations

import os

# Read when Triton is first imported, by whichever library that is: no test needs a GPU.
os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from headrace.bus.jetstream import JetStreamBus, connect
from headrace.testing.nats_server import NatsServer, nats_server
from helpers.environment import required_kinds
from helpers.postgres import PostgresServer, postgres_server

_LEARNED = pytest.StashKey[list[str]]()

TESTS = Path(__file__).parent
# Why no deadline: a busy machine takes any time for one example.
hypothesis.settings.register_profile("headrace", deadline=None)
hypothesis.settings.load_profile("headrace")

# Those run in environments of their own: tests/clients/README.md.
collect_ignore_glob = ["clients/*/*"]

KINDS = ("unit", "component", "contract", "e2e", "chaos")

Learned = Callable[[str], None]
"""Told what a library can do by now that a test expected it not to."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by its directory."""
    kind = item.path.relative_to(TESTS).parts[0]
    if kind in KINDS:
        item.add_marker(kind)


def pytest_configure() -> None:
    """Refuse a HEADRACE_REQUIRE that names an unknown kind of environment before any test runs."""
    required_kinds()


@pytest.fixture
def learned(request: pytest.FixtureRequest) -> Learned:
    """For tests of what a library does not do: that it has learned it is news, and no failure."""
    return request.config.stash.setdefault(_LEARNED, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say at the end of the run what libraries have learned, and what to do about it."""
    facts: list[str] = config.stash.get(_LEARNED, [])
    if facts:
        terminalreporter.section("libraries have learned")
        for fact in sorted(set(facts)):
            terminalreporter.line(fact)


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, one for all tests of the process."""
    with postgres_server() as server:
        yield server


@pytest.fixture
async def postgres_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """An empty database of `postgres`."""
    url = await postgres.new_database()
    yield url
    await postgres.drop_database(url)

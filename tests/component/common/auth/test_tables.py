"""Revocations reach every process that watches the tables, whatever the broker goes through."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from headrace.auth.keys import key_id_of
from headrace.auth.tables import OLD_S, AccessTables
from headrace.bus import BusUnavailable
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.subjects import TENANTS_TABLE
from headrace.clock import SystemClock
from headrace.testing.nats_server import NatsServer
from helpers.access_tables import PublishedTables, cookie_digest
from helpers.eventually import eventually

GATEWAYS, REVOCATIONS, WITHIN_S = 8, 100, 1.0


@pytest.fixture
async def watchers(nats: NatsServer) -> AsyncIterator[list[AccessTables]]:
    """Tables of processes with a connection each."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(GATEWAYS):
            bus = await connect(nats.url, name=f"gateway-{number}")
            stack.push_async_callback(bus.close)
            tables = AccessTables(bus, SystemClock())
            found.append(await stack.enter_async_context(tables.watching()))
        yield found


async def in_force(watcher: AccessTables, key_ids: list[str]) -> dict[str, float]:
    """Return when each revocation came into force."""
    seen: dict[str, float] = {}
    async with asyncio.timeout(30):
        while len(seen) < len(key_ids):
            gone = (each for each in key_ids if each not in seen and watcher.key(each) is None)
            seen |= dict.fromkeys(gone, time.monotonic())
            await asyncio.sleep(0.002)
    return seen


async def revoke(tables: PublishedTables, keys: list[str]) -> dict[str, float]:
    """Revoke them one after the other; return when each revocation was confirmed."""
    confirmed: dict[str, float] = {}
    for key in keys:
        while True:
            try:
                await tables.revoke(key)
                break
            except BusUnavailable:
                await asyncio.sleep(0.05)
        confirmed[key_id_of(key) or ""] = time.monotonic()
    return confirmed


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_revocation_is_in_force_at_eight_gateways_within_a_second(
    nats: NatsServer, bus: JetStreamBus, watchers: list[AccessTables], restarts: bool
) -> None:
    tables = PublishedTables(bus)
    keys = [await tables.key() for _ in range(REVOCATIONS)]
    kept = await tables.key()
    await tables.stamp()
    await eventually(lambda: all(w.key(key_id_of(kept) or "") is not None for w in watchers))
    if restarts:
        await nats.kill()
        await asyncio.sleep(0.3)
        await nats.start()
        await eventually(lambda: bus.connected)
    ids = [key_id_of(key) or "" for key in keys]
    confirmed, *seen = await asyncio.gather(
        revoke(tables, keys), *(in_force(watcher, ids) for watcher in watchers)
    )
    delays = [each[key_id] - confirmed[key_id] for each in seen for key_id in ids]
    in_time = sum(delay < WITHIN_S for delay in delays)
    assert (in_time, len(delays)) == (GATEWAYS * REVOCATIONS, 800), max(delays)
    assert all(watcher.key(key_id_of(kept) or "") is not None for watcher in watchers)


async def test_signing_out_is_in_force_as_soon(
    bus: JetStreamBus, watchers: list[AccessTables]
) -> None:
    tables = PublishedTables(bus)
    cookie = await tables.session(role="owner")
    await tables.stamp()
    digest = cookie_digest(cookie)
    await eventually(lambda: all(watcher.session(digest) for watcher in watchers))
    await tables.sign_out(cookie)
    await eventually(
        lambda: not any(watcher.session(digest) for watcher in watchers), within_s=WITHIN_S
    )


async def test_a_broker_that_lost_its_store_revokes_no_key_and_brings_none_back(
    nats: NatsServer, bus: JetStreamBus, watchers: list[AccessTables]
) -> None:
    tables = PublishedTables(bus)
    kept, revoked, revoked_meanwhile = [await tables.key() for _ in range(3)]
    await tables.tenant("team.a", weight=2.0)
    await tables.stamp()
    await tables.revoke(revoked)
    watcher = watchers[0]

    def known() -> list[bool]:
        keys = kept, revoked, revoked_meanwhile
        return [watcher.key(key_id_of(key) or "") is not None for key in keys]

    await eventually(lambda: known() == [True, False, True])
    # Each table is watched by itself: the last may come after the keys.
    await eventually(lambda: watcher.not_ready_reason() is None)
    await nats.kill()
    shutil.rmtree(nats.directory / "store")
    await nats.start()
    await eventually(lambda: bus.connected)
    await asyncio.sleep(1.0)
    assert known() == [True, False, True]
    assert watcher.not_ready_reason() is None
    assert watcher.weights() == {"team.a": 2.0}
    # Control writes what it has, and says then that this is all.
    again = await _repeat(tables.key)
    await tables.stamp()
    await eventually(lambda: known() == [False, False, False], within_s=10)
    assert watcher.key(key_id_of(again) or "") is not None


async def _repeat(make: Callable[[], Awaitable[str]]) -> str:
    while True:
        try:
            return await make()
        except BusUnavailable:
            await asyncio.sleep(0.1)


class _Later:
    """A clock a day and an hour ahead."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time() + OLD_S + 3600


async def test_tables_of_yesterday_are_in_force_and_warned_about(
    bus: JetStreamBus, caplog: pytest.LogCaptureFixture
) -> None:
    tables = PublishedTables(bus)
    key = await tables.key()
    await tables.stamp()
    watcher = AccessTables(bus, _Later())
    with caplog.at_level(logging.WARNING):
        async with watcher.watching():
            await eventually(lambda: watcher.not_ready_reason() is None)
            watcher.check_age()
    assert watcher.key(key_id_of(key) or "") is not None
    assert (watcher.age_s() or 0) > OLD_S
    assert "access.tables_old" in [each.getMessage() for each in caplog.records]


async def test_a_process_may_watch_only_what_it_needs(bus: JetStreamBus) -> None:
    tables = PublishedTables(bus)
    await tables.tenant("a", weight=3.0)
    await tables.tenant("b", weight=1.0)
    await tables.tenant("c", weight=-1.0)
    key = await tables.key("a")
    await tables.stamp()
    changes = []
    watcher = AccessTables(bus, SystemClock(), [TENANTS_TABLE])
    async with watcher.watching(lambda: changes.append(watcher.weights())):
        await eventually(lambda: watcher.weights() == {"a": 3.0})
        assert watcher.key(key_id_of(key) or "") is None
        await tables.tenant("a", weight=4.0)
        await eventually(lambda: changes[-1] == {"a": 4.0})

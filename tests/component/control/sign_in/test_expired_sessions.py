"""Sessions that have expired leave the database and the table on the bus."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headrace.bus.subjects import SESSIONS_TABLE
from headrace.errors import ControlUnavailable
from headrace_control.sign_in.expired_sessions import remove_expired_sessions
from headrace_control.store import Store
from helpers.control_store import TestClock, make_member, open_session, replay
from helpers.eventually import eventually


async def test_expired_sessions_are_removed_and_others_stay(tmp_path: Path) -> None:
    clock = TestClock()
    store = await Store.open(f"sqlite:///{tmp_path}/control.db", upgrade=True, clock=clock)
    person = (await make_member(store, "acme", "ann@example.com")).person_id
    brief = await open_session(store, "acme", person=person, expires=clock.after(60))
    longer = await open_session(store, "acme", person=person, expires=clock.after(120))
    tables = await replay(store)
    assert set(tables[SESSIONS_TABLE]) == {brief.digest, longer.digest}
    clock.advance(61)
    removing = asyncio.create_task(remove_expired_sessions(store.sessions, every_s=0.01))

    async def is_removed() -> bool:
        return set((await replay(store, tables))[SESSIONS_TABLE]) == {longer.digest}

    await eventually(is_removed)
    removing.cancel()
    await asyncio.wait({removing})
    await store.close()


class _AwayAtFirst:
    def __init__(self) -> None:
        self.calls = 0

    async def delete_expired(self) -> int:
        self.calls += 1
        if self.calls == 1:
            raise ControlUnavailable("the database is away")
        return 1


async def test_a_database_that_is_away_is_tried_again() -> None:
    sessions = _AwayAtFirst()
    removing = asyncio.create_task(remove_expired_sessions(sessions, every_s=0.001))
    await eventually(lambda: sessions.calls > 2)
    removing.cancel()
    await asyncio.wait({removing})

"""How many sessions one person or key has."""

from __future__ import annotations

import pytest

from headrace.bus.subjects import SESSIONS_TABLE
from headrace_control.base.records import Key
from headrace_control.store import Store
from headrace_control.store.sessions import MAX_SESSIONS
from helpers.control_store import TestClock, make_key, make_member, open_session, replay


@pytest.mark.parametrize("of", ["person", "key_id"])
async def test_the_oldest_of_too_many_sessions_end(store: Store, clock: TestClock, of: str) -> None:
    ann = await make_member(store, "acme", "ann@example.com")
    bob = await make_member(store, "acme", "bob@example.com")
    for key_id in ("key-a", "key-b"):
        await make_key(store, Key(key_id, "acme"))
    own, other = {"person": (ann.person_id, bob.person_id), "key_id": ("key-a", "key-b")}[of]
    first = await open_session(store, "acme", **{of: other}, expires=clock.after(9_999))
    opened = []
    for number in range(MAX_SESSIONS + 2):
        clock.advance(1)
        expires = clock.after(1_000 + number)
        opened.append(await open_session(store, "acme", **{of: own}, expires=expires))
    kept = {each.digest for each in [first, *opened[2:]]}
    assert set((await replay(store))[SESSIONS_TABLE]) == kept

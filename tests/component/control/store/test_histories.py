"""Whatever was done in whatever order, the outbox tells the tables what the database holds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import RequestError
from headrace_control.base.records import ROLES, Key, Limits, Person, Plan, Tenant
from headrace_control.store import Store
from helpers.control_store import (
    ROOT,
    TestClock,
    digest,
    make_key,
    open_session,
    replay,
)

TENANTS, PLANS, PEOPLE, KEYS = ("a", "b"), ("p", "q"), (0, 1, 2), ("k1", "k2", "k3")
Step = Callable[["World"], Awaitable[object]]


class World:
    """A store, and the people and sessions that a history has made."""

    def __init__(self, store: Store, clock: TestClock) -> None:
        self.store, self.clock = store, clock
        self.people: list[str] = []
        self.sessions: list[str] = []

    async def open(self, tenant: str, person: str, key_id: str) -> None:
        self.clock.advance(1)
        expires = self.clock.now + timedelta(seconds=30)
        session = await open_session(
            self.store, tenant, person=person, key_id=key_id, expires=expires
        )
        self.sessions.append(session.session_id)


def steps() -> st.SearchStrategy[Step]:
    tenant, key = st.sampled_from(TENANTS), st.sampled_from(KEYS)
    who, role = st.sampled_from(PEOPLE), st.sampled_from(ROLES)
    number = st.integers(0, 3)
    return st.one_of(
        _tenant_steps(tenant, number),
        _key_steps(tenant, key, who, number),
        _people_steps(tenant, key, who, role),
    )


def _tenant_steps(
    tenant: st.SearchStrategy[str], number: st.SearchStrategy[int]
) -> st.SearchStrategy[Step]:
    plan = st.sampled_from(PLANS)
    return st.one_of(
        st.builds(lambda t: lambda w: w.store.tenants.create(Tenant(t), by=ROOT), tenant),
        st.builds(
            lambda t, p, n: (
                lambda w: w.store.tenants.update(
                    t, lambda old: replace(old, plan=p, weight=n, disabled=n == 0), by=ROOT
                )
            ),
            *(tenant, st.sampled_from(("", *PLANS)), number),
        ),
        st.builds(
            lambda t, f: lambda w: w.store.tenants.delete(t, force=f, by=ROOT),
            *(tenant, st.booleans()),
        ),
        st.builds(lambda p: lambda w: w.store.plans.create(Plan(p), by=ROOT), plan),
        st.builds(
            lambda p, n: (
                lambda w: w.store.plans.update(
                    p, lambda old: replace(old, limits=Limits(n)), by=ROOT
                )
            ),
            *(plan, number),
        ),
        st.builds(lambda p: lambda w: w.store.plans.delete(p, by=ROOT), plan),
    )


def _key_steps(
    tenant: st.SearchStrategy[str],
    key: st.SearchStrategy[str],
    who: st.SearchStrategy[int],
    number: st.SearchStrategy[int],
) -> st.SearchStrategy[Step]:
    return st.one_of(
        st.builds(
            lambda k, t, i: (
                lambda w: make_key(
                    w.store, Key(k, t, person=w.people[i], scopes=("generate", "models:read"))
                )
            ),
            *(key, tenant, who),
        ),
        st.builds(lambda k, t: lambda w: make_key(w.store, Key(k, t)), key, tenant),
        st.builds(lambda k: lambda w: w.store.keys.revoke("", k, by=ROOT), key),
        st.builds(
            lambda k, t, n: (
                lambda w: w.store.keys.update(
                    t, k, lambda old: replace(old, scopes=("models:read",) * (n % 2)), by=ROOT
                )
            ),
            *(key, tenant, number),
        ),
        st.builds(
            lambda k, t, n: (
                lambda w: w.store.keys.rotate(
                    t, k, digest(str(n)), redacted="", old_ends=w.clock.after(n), by=ROOT
                )
            ),
            *(key, tenant, number),
        ),
    )


def _people_steps(
    tenant: st.SearchStrategy[str],
    key: st.SearchStrategy[str],
    who: st.SearchStrategy[int],
    role: st.SearchStrategy[str],
) -> st.SearchStrategy[Step]:
    return st.one_of(
        st.builds(
            lambda t, i, r: lambda w: w.store.members.create(t, w.people[i], r, by=ROOT),
            *(tenant, who, role),
        ),
        st.builds(
            lambda t, i, r: lambda w: w.store.members.update(t, w.people[i], r, by=ROOT),
            *(tenant, who, role),
        ),
        st.builds(
            lambda t, i: lambda w: w.store.members.delete(t, w.people[i], by=ROOT), tenant, who
        ),
        st.builds(lambda i: lambda w: w.store.people.deactivate(w.people[i], by=ROOT), who),
        st.builds(lambda i: lambda w: w.store.people.activate(w.people[i], by=ROOT), who),
        st.builds(lambda t, i: lambda w: w.open(t, w.people[i], ""), tenant, who),
        st.builds(lambda t, k: lambda w: w.open(t, "", k), tenant, key),
        st.builds(
            lambda n, t: (
                lambda w: w.store.sessions.switch_tenant(
                    w.sessions[n % len(w.sessions)] if w.sessions else "", t, by=ROOT
                )
            ),
            *(st.integers(0, 9), tenant),
        ),
        st.builds(
            lambda n: (
                lambda w: (
                    w.store.sessions.delete(w.sessions[n % len(w.sessions)], by=ROOT)
                    if w.sessions
                    else w.store.sessions.delete_expired()
                )
            ),
            st.integers(0, 9),
        ),
        st.just(lambda w: w.store.sessions.delete_expired()),
    )


async def run(history: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = TestClock()
        store = await Store.open(f"sqlite:///{folder}/x.db", upgrade=True, clock=clock)
        world = World(store, clock)
        for number in PEOPLE:
            person = Person("", email=f"{number}@example.com")
            world.people.append((await store.people.create(person, by=ROOT)).person_id)
        tables = await replay(store)
        for step in history:
            try:
                await step(world)
            except RequestError:
                assert await store.outbox.pending() == ()
            tables = await replay(store, tables)
            assert tables == await store.outbox.all_rows()
        assert (await store.audit.verify_chain()).fault == ""
        await store.close()


@settings(max_examples=40)
@given(st.lists(steps(), min_size=5, max_size=25))
def test_the_tables_made_from_the_outbox_are_those_made_from_scratch(history: list[Step]) -> None:
    asyncio.run(run(history))

"""Reports of gateways count once, and a digest is renewed only for the secret that it is of."""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.internal.v1.access_pb2 import KeyRow
from headrace_control.base.records import Digest, FailedAttempts, Key, KeyUse
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock, digest, make_key, replay


async def report(store: Store, sequence: int, *uses: KeyUse, gateway: str = "gw-1") -> bool:
    return await store.uses.record(gateway, sequence, uses=uses, pepper_id="p2")


async def digests(store: Store) -> tuple[Digest, ...]:
    return (await store.keys.find("k1")).digests


async def test_the_last_use_is_the_latest_and_no_later_than_now(
    store: Store, clock: TestClock
) -> None:
    await make_key(store, Key("k1", "acme"))
    clock.advance(100)
    now = clock.now
    for sequence, (time, client) in enumerate(
        [(clock.after(-5), "a"), (clock.after(-9), "b"), (clock.after(3600), "c")], 1
    ):
        await report(store, sequence, KeyUse("k1", time, client), KeyUse("unknown", time))
    key = await store.keys.find("k1")
    assert (key.last_use_time, key.last_use_client) == (now, "c")
    assert key.update_time == now - timedelta(seconds=100)


async def test_a_repeated_report_counts_once(store: Store, clock: TestClock) -> None:
    failed = FailedAttempts("192.0.2.1", "unknown", "", 5, clock.now, clock.now)
    for sequence, is_new in ((1, True), (1, False), (2, True), (1, False)):
        recorded = await store.uses.record("gw-1", sequence, failures=[failed], pepper_id="p1")
        assert recorded is is_new
    assert await store.uses.record("gw-2", 1, failures=[failed], pepper_id="p1")
    assert len((await store.audit.list(action="access.failed")).items) == 3


async def test_many_failures_become_few_events(store: Store, clock: TestClock) -> None:
    failures = [
        FailedAttempts(f"192.0.2.{n % 256}", "unknown", "", 2, clock.now, clock.now)
        for n in range(1000)
    ]
    await store.uses.record("gw-1", 1, failures=failures, pepper_id="p1")
    assert (await store.audit.verify_chain()).events == 201
    events = (await store.audit.list(action="access.failed")).items
    assert events[0].details == '{"addresses": 800, "attempts": 1600}'


async def test_failures_of_a_key_concern_its_tenant(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme"))
    failures = [
        FailedAttempts("192.0.2.1", "network", key_id, 1, clock.now, clock.now)
        for key_id in ("k1", "none")
    ]
    await store.uses.record("gw-1", 1, failures=failures, pepper_id="p1")
    (event,) = (await store.audit.list(tenant="acme", action="access.failed")).items
    assert event.resource == "tenants/acme/keys/k1"


def renewed(secret: str, clock: TestClock, expire: datetime | None = None) -> KeyUse:
    return KeyUse("k1", clock.now, renewed=digest(f"{secret} anew", "p2", expire))


async def test_a_digest_of_an_old_pepper_is_renewed(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme"))
    await report(store, 1, renewed("k1", clock))
    assert await digests(store) == (digest("k1 anew", "p2"),)
    row = KeyRow.FromString((await replay(store))["keys"]["k1"])
    assert [each.pepper_id for each in row.digests] == ["p2"]
    (event,) = (await store.audit.list(action="keys.renew_digest")).items
    assert event.actor == "system"


async def test_a_digest_that_is_of_the_current_pepper_stays(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme"), pepper="p2")
    await report(store, 1, renewed("forged", clock))
    other = KeyUse("k1", clock.now, renewed=digest("forged", "p3"))
    await report(store, 2, other)
    assert await digests(store) == (digest("k1", "p2"),)


async def test_a_revoked_key_stays_dead(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme"))
    await store.keys.revoke("acme", "k1", by=ROOT)
    await report(store, 1, renewed("k1", clock))
    assert await digests(store) == ()


async def test_during_a_rotation_each_secret_is_renewed_in_its_place(
    store: Store, clock: TestClock
) -> None:
    await make_key(store, Key("k1", "acme"))
    end = clock.after(600)
    new = digest("two")
    await store.keys.rotate("acme", "k1", new, redacted="", old_ends=end, by=ROOT)
    await report(store, 1, renewed("k1", clock, end))
    assert await digests(store) == (new, digest("k1 anew", "p2", end))
    await report(store, 2, renewed("two", clock))
    assert await digests(store) == (digest("two anew", "p2"), digest("k1 anew", "p2", end))
    # One that fits neither secret is nobody's.
    await report(store, 3, renewed("forged", clock, clock.after(1)))
    assert len(await digests(store)) == 2

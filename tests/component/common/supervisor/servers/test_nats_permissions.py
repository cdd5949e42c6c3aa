"""What each user of a real broker can do: all that its processes do, and nothing of the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial

import nats.errors
import pytest
from nats.js.api import ConsumerConfig

from headrace.bus import BusUnavailable, stores, subjects
from headrace.bus.control import request_drain, serve_drain
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.stores import DEAD_STREAM, REQUEST_STREAM, RESULT_STREAM, USAGE_STREAM
from headrace.supervisor.servers.nats import Broker
from headrace.supervisor.servers.nats_permissions import BrokerUser
from helpers.broker_users import MODEL, NOT_ALLOWED_S, Connect, refused, synced


async def echo(payload: bytes) -> bytes:
    return payload


async def served(bus: JetStreamBus, subject: str) -> None:
    """Answer what comes to a subject, from now on."""
    await bus.serve(subject, echo)
    await synced(bus)


def _set(event: asyncio.Event, _: bytes) -> None:
    event.set()


async def test_without_a_password_there_is_no_connection(broker: Broker) -> None:
    with pytest.raises(BusUnavailable, match="refuses this user, password or token"):
        await connect(broker.url, name="nobody", wait_s=1)
    assert broker.config.stat().st_mode & 0o077 == 0


async def test_gateways_scheduler_and_workers_carry_a_request(connected: Connect) -> None:
    gateway = await connected(BrokerUser.GATEWAY)
    scheduler = await connected(BrokerUser.SCHEDULER)
    worker = await connected(BrokerUser.WORKER)

    await worker.put_tokenizer("digest", b"x" * 300_000)
    await worker.put_card(MODEL, b"card")
    assert await gateway.all_cards() == [b"card"]
    assert await gateway.get_tokenizer("digest") == b"x" * 300_000
    cards: list[bytes] = []
    await scheduler.watch_cards(lambda _, card: cards.append(card))

    await scheduler.acquire("leader.pebble", "s", ttl_s=3)
    await scheduler.renew("leader.pebble", "s", ttl_s=3)
    await gateway.submit(MODEL, "standard", b"request", message_id="1")
    lane = await scheduler.take_over(MODEL, "standard")
    (pulled,) = await lane.pull(max_messages=8, timeout_s=5)
    await served(worker, subjects.dispatch("w"))
    assert await scheduler.request(subjects.dispatch("w"), b"go", timeout_s=5) == b"go"
    await served(scheduler, subjects.settle(MODEL))
    await gateway.put_result("r", b"result")
    assert await gateway.request(subjects.settle(MODEL), b"done", timeout_s=5) == b"done"
    await lane.acknowledge(pulled.acknowledgement)
    assert await scheduler.get_result("r") == b"result"
    await scheduler.store_dead_letter(MODEL, b"letter")
    await served(gateway, subjects.notice("g"))
    assert await scheduler.request(subjects.notice("g"), b"moved", timeout_s=5) == b"moved"
    async with asyncio.timeout(5):
        while not cards:
            await asyncio.sleep(0.01)
    assert cards == [b"card"]
    assert await scheduler.replace_card(MODEL, b"card", None)
    await scheduler.release("leader.pebble")


async def test_reports_reach_whom_they_are_for(connected: Connect) -> None:
    buses = {user: await connected(user) for user in BrokerUser}
    for sender, subject, readers in (
        ("worker", subjects.WORKER_REPORTS, ("gateway", "scheduler", "control", "operator")),
        ("worker", subjects.PREFIX_REPORTS, ("scheduler",)),
        ("gateway", subjects.GATEWAY_REPORTS, ("scheduler",)),
        ("scheduler", subjects.LANE_REPORTS, ("gateway", "control")),
        ("operator", subjects.BROKER_REPORTS, ("gateway", "scheduler", "worker", "control")),
    ):
        arrived = {reader: asyncio.Event() for reader in readers}
        for reader, event in arrived.items():
            await buses[BrokerUser(reader)].subscribe(subject, partial(_set, event))
            await synced(buses[BrokerUser(reader)])
        await buses[BrokerUser(sender)].publish(subject, b"")
        async with asyncio.timeout(5):
            for event in arrived.values():
                await event.wait()


async def test_control_writes_tables_that_gateways_and_schedulers_read(connected: Connect) -> None:
    gateway, control = await connected(BrokerUser.GATEWAY), await connected(BrokerUser.CONTROL)
    scheduler = await connected(BrokerUser.SCHEDULER)
    await control.acquire("control", "c", ttl_s=3)
    for table in subjects.TABLES:
        await control.put_row(table, "k", b"row")
        assert await gateway.rows(table) == {"k": b"row"}
        assert await control.rows(table) == {"k": b"row"}
        await control.delete_row(table, "k")
        assert await gateway.rows(table) == {}
    assert await scheduler.rows(subjects.TENANTS_TABLE) == {}
    await served(control, subjects.ACCESS_REPORTS)
    for bus in (gateway, control):
        assert await bus.request(subjects.ACCESS_REPORTS, b"used", timeout_s=5) == b"used"


async def test_gateways_ask_control_and_the_keeper_about_callers(connected: Connect) -> None:
    gateway, control = await connected(BrokerUser.GATEWAY), await connected(BrokerUser.CONTROL)
    await served(control, subjects.OWN_USAGE)
    await served(await connected(BrokerUser.SCHEDULER), subjects.QUOTA)
    for subject in (subjects.OWN_USAGE, subjects.QUOTA):
        assert await gateway.request(subject, b"used", timeout_s=5) == b"used"


async def test_the_scheduler_keeps_the_journal_of_quotas_and_nobody_else(
    connected: Connect,
) -> None:
    scheduler, gateway = await connected(BrokerUser.SCHEDULER), await connected(BrokerUser.GATEWAY)
    await scheduler.acquire(stores.KEEPER_LEASE, "s", ttl_s=3)
    for table in (subjects.TENANTS_TABLE, subjects.KEYS_TABLE, subjects.PRICES_TABLE):
        assert await scheduler.rows(table) == {}
    await served(scheduler, subjects.QUOTA)
    assert await gateway.request(subjects.QUOTA, b"reserve", timeout_s=5) == b"reserve"
    first = await scheduler.append_entry(b"1", after=0)
    await scheduler.append_entry(b"2", after=first)
    await scheduler.delete_entries(before=first + 1)
    for user in (BrokerUser.GATEWAY, BrokerUser.WORKER, BrokerUser.CONTROL):
        other = await connected(user)
        assert await refused(other.jetstream.publish(subjects.QUOTA_JOURNAL, b"forged"))
        assert await refused(other.jetstream.purge_stream(stores.QUOTA_JOURNAL))
        assert await refused(other.acquire(stores.KEEPER_LEASE, "forged", ttl_s=3))
    assert (await scheduler.read_journal()).entries == [b"2"]


async def test_operators_see_and_end_what_runs(connected: Connect) -> None:
    control, worker = await connected(BrokerUser.CONTROL), await connected(BrokerUser.WORKER)
    operator = await connected(BrokerUser.OPERATOR)
    scheduler = await connected(BrokerUser.SCHEDULER)
    await served(scheduler, subjects.live_requests(MODEL))
    assert await control.request(subjects.live_requests(MODEL), b"all", timeout_s=5) == b"all"
    await scheduler.store_dead_letter(MODEL, b"letter")
    assert [each.letter for each in await control.dead_letters(limit=5)] == [b"letter"]
    assert [each.letter for each in await operator.dead_letters(limit=5)] == [b"letter"]
    await control.submit(MODEL, "standard", b"again", message_id="2")
    drained: list[float | None] = []
    await serve_drain(worker, "worker-0", drained.append)
    await synced(worker)
    await request_drain(control, "worker-0", timeout_s=5)
    assert len(drained) == 1
    await operator.probe_store(timeout_s=5)


@pytest.mark.parametrize("user", [BrokerUser.GATEWAY, BrokerUser.SCHEDULER, BrokerUser.WORKER])
async def test_only_control_writes_the_tables(connected: Connect, user: BrokerUser) -> None:
    control, other = await connected(BrokerUser.CONTROL), await connected(user)
    for table in subjects.TABLES:
        assert await refused(other.jetstream.publish(f"$KV.headrace_{table}.k", b"forged"))
        assert await control.rows(table) == {}
    assert await refused(other.acquire("control", "forged", ttl_s=3))


READERS_OF_STREAMS = [BrokerUser.GATEWAY, BrokerUser.SCHEDULER, BrokerUser.WORKER]


async def delivered_to(bus: JetStreamBus, subject: str, stream: str, stored: str) -> None:
    """Have the broker deliver a stored message to a subject, in each way that there is for it."""
    client = bus.jetstream._nc
    await client.publish(f"$JS.API.DIRECT.GET.{stream}.{stored}", b"", reply=subject)
    await client.publish(f"$JS.API.DIRECT.GET.{stream}", b'{"seq": 1}', reply=subject)
    pulled, pushed = f"pulled-{len(subject)}", f"pushed-{len(subject)}"
    for name, to in ((pulled, {}), (pushed, {"deliver_subject": subject})):
        config = {"name": name, "filter_subject": stored, "ack_policy": "none", **to}
        call = f"$JS.API.CONSUMER.CREATE.{stream}.{name}.{stored}"
        made = {"stream_name": stream, "config": config}
        with contextlib.suppress(nats.errors.Error):
            await client.request(call, json.dumps(made).encode(), timeout=NOT_ALLOWED_S)
    await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{pulled}", b"1", reply=subject)
    await synced(bus)
    await asyncio.sleep(0.2)


async def test_no_stored_message_becomes_a_row_of_a_table(connected: Connect) -> None:
    control, worker = await connected(BrokerUser.CONTROL), await connected(BrokerUser.WORKER)
    await worker.put_tokenizer("digest", b"forged")
    (bundle,) = await streams_subjects(worker, "OBJ_headrace_tokenizers", "$O.*.C.>")
    await worker.put_card(MODEL, b"forged")
    (card,) = await streams_subjects(worker, "KV_headrace_cards", ">")
    for user in READERS_OF_STREAMS:
        forger = await connected(user)
        for table in subjects.TABLES:
            row = f"$KV.headrace_{table}.{user}"
            await delivered_to(forger, row, "OBJ_headrace_tokenizers", bundle)
            await delivered_to(forger, row, "KV_headrace_cards", card)
            assert await control.rows(table) == {}


async def streams_subjects(bus: JetStreamBus, stream: str, pattern: str) -> list[str]:
    info = await bus.jetstream.stream_info(stream, subjects_filter=pattern)
    return list(info.state.subjects or {})


async def test_no_stored_message_becomes_a_call_of_another_role(connected: Connect) -> None:
    worker, heard = await connected(BrokerUser.WORKER), asyncio.Event()
    await worker.put_card(MODEL, b"forged")
    (card,) = await streams_subjects(worker, "KV_headrace_cards", ">")

    async def dispatched(payload: bytes) -> bytes:
        heard.set()
        return payload

    gateway, scheduler = await connected(BrokerUser.GATEWAY), await connected(BrokerUser.SCHEDULER)
    await worker.serve(subjects.dispatch("w"), dispatched)
    await gateway.subscribe(subjects.LANE_REPORTS, lambda _: heard.set())
    await asyncio.gather(synced(worker), synced(gateway))
    for subject in (subjects.dispatch("w"), subjects.LANE_REPORTS):
        await delivered_to(gateway, subject, "KV_headrace_cards", card)
    assert not heard.is_set()
    assert await scheduler.request(subjects.dispatch("w"), b"go", timeout_s=5) == b"go"


@pytest.mark.parametrize("user", READERS_OF_STREAMS)
async def test_only_control_changes_streams(connected: Connect, user: BrokerUser) -> None:
    js = (await connected(user)).jetstream
    for stream in (REQUEST_STREAM, RESULT_STREAM, DEAD_STREAM, USAGE_STREAM, "KV_headrace_keys"):
        config = (await (await connected(BrokerUser.OPERATOR)).jetstream.stream_info(stream)).config
        config.allow_direct = True
        assert await refused(js.update_stream(config))


async def test_workers_neither_submit_nor_read_requests_results_and_keys(
    connected: Connect,
) -> None:
    worker = await connected(BrokerUser.WORKER)
    assert await refused(worker.submit(MODEL, "bulk", b"forged", message_id="3"))
    assert await refused(worker.take_over(MODEL, "bulk"))
    assert await refused(worker.put_result("r", b"forged"))
    assert await refused(worker.get_result("r"))
    assert await refused(worker.rows(subjects.KEYS_TABLE))
    assert await refused(worker.dead_letters(limit=1))
    assert await refused(worker.request(subjects.settle(MODEL), b"", timeout_s=0.3))


async def test_gateways_and_workers_neither_lead_nor_drain(connected: Connect) -> None:
    for user in (BrokerUser.GATEWAY, BrokerUser.WORKER):
        bus = await connected(user)
        assert await refused(bus.acquire("leader.pebble", "forged", ttl_s=3))
        assert await refused(bus.request(subjects.drain("worker-0"), b"", timeout_s=0.3))
        assert await refused(bus.request(subjects.dispatch("w"), b"", timeout_s=0.3))
    assert await refused((await connected(BrokerUser.SCHEDULER)).rows(subjects.SESSIONS_TABLE))


async def test_a_worker_cannot_have_the_broker_deliver_what_it_wrote_to_others(
    connected: Connect,
) -> None:
    worker = await connected(BrokerUser.WORKER)
    await worker.put_card(MODEL, b"forged")
    aimed = ConsumerConfig(deliver_subject=subjects.dispatch("other"))
    assert await refused(worker.jetstream.add_consumer("KV_headrace_cards", aimed))


async def test_what_a_consumer_delivers_is_not_stored_under_a_subject_of_control(
    connected: Connect,
) -> None:
    scheduler, control = (
        (await connected(BrokerUser.SCHEDULER)),
        await connected(BrokerUser.CONTROL),
    )
    await scheduler.put_card(MODEL, b"forged")
    aimed = ConsumerConfig(deliver_subject="$KV.headrace_sessions.forged")
    await scheduler.jetstream.add_consumer("KV_headrace_cards", aimed)
    await asyncio.sleep(NOT_ALLOWED_S)
    assert await control.rows(subjects.SESSIONS_TABLE) == {}


@pytest.mark.parametrize("user", [u for u in BrokerUser if u is not BrokerUser.OPERATOR])
async def test_nobody_but_the_operator_deletes_or_empties_a_stream(
    connected: Connect, user: BrokerUser
) -> None:
    js = (await connected(user)).jetstream
    streams = (REQUEST_STREAM, RESULT_STREAM, DEAD_STREAM, "KV_headrace_keys")
    calls = [call(stream) for call in (js.delete_stream, js.purge_stream) for stream in streams]
    assert all(await asyncio.gather(*map(refused, calls)))


@pytest.mark.parametrize("user", [u for u in BrokerUser if u is not BrokerUser.OPERATOR])
async def test_no_role_receives_the_replies_to_another(
    connected: Connect, user: BrokerUser
) -> None:
    spy, other = await connected(user), BrokerUser.GATEWAY
    if user is other:
        other = BrokerUser.SCHEDULER
    heard = asyncio.Event()
    for subject in (f"{subjects.inbox_prefix(other)}.>", "_INBOX.>", ">"):
        await spy.subscribe(subject, lambda _: heard.set())
    asker = await connected(other)
    await asker.all_cards()
    await synced(spy)
    assert not heard.is_set()

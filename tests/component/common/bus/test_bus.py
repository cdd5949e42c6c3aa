"""The bus over a real nats-server: what services rely on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import pytest

from headrace.bus import BusUnavailable, LaneBroken, LeaseTaken, NoReply, PulledMessage
from headrace.bus.jetstream import JetStreamBus, JetStreamLane, connect
from headrace.model_names import lane_id
from headrace.testing.nats_server import NatsServer, nats_cluster
from helpers.eventually import eventually


async def pull_all(lane: JetStreamLane, count: int) -> list[PulledMessage]:
    found: list[PulledMessage] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += await lane.pull(max_messages=count, timeout_s=1)
    return found


async def test_a_published_message_reaches_every_subscriber(bus: JetStreamBus) -> None:
    seen: list[bytes] = []
    await bus.subscribe("headrace.test", seen.append)
    await bus.subscribe("headrace.test", seen.append)
    await bus.publish("headrace.test", b"x")
    await eventually(lambda: seen == [b"x", b"x"])


async def test_a_request_is_answered_by_the_process_that_serves_the_subject(
    bus: JetStreamBus,
) -> None:
    async def reverse(payload: bytes) -> bytes:
        return payload[::-1]

    await bus.serve("headrace.test", reverse)
    assert await bus.request("headrace.test", b"abc", timeout_s=2) == b"cba"


async def test_a_request_without_a_responder_fails_at_once(bus: JetStreamBus) -> None:
    with pytest.raises(NoReply, match=r"no process serves headrace\.test"):
        await bus.request("headrace.test", b"", timeout_s=30)


async def test_a_request_that_is_never_answered_ends_at_its_time(bus: JetStreamBus) -> None:
    async def never(payload: bytes) -> bytes:
        return await asyncio.Future()

    await bus.serve("headrace.test", never)
    with pytest.raises(NoReply, match=r"no reply from headrace\.test in 0\.1 s"):
        await bus.request("headrace.test", b"", timeout_s=0.1)


async def test_a_lane_gives_out_its_messages_in_order_and_keeps_them_until_acknowledged(
    bus: JetStreamBus,
) -> None:
    for i in range(3):
        await bus.submit("m", "standard", b"%d" % i, message_id=str(i))
    first = await bus.take_over("m", "standard")
    pulled = await pull_all(first, 3)
    assert [p.payload for p in pulled] == [b"0", b"1", b"2"]
    await first.acknowledge(pulled[1].acknowledgement)

    successor = await bus.take_over("m", "standard")
    assert [p.payload for p in await pull_all(successor, 2)] == [b"0", b"2"]


async def steal(nats_url: str, consumer: str) -> None:
    """Have the next message delivered to another reader, as if it got lost on its way."""
    client = await nats.connect(nats_url)
    subscription = await client.jetstream().pull_subscribe_bind(
        consumer=consumer, stream="REQUESTS"
    )
    await subscription.fetch(1, timeout=5)
    await client.close()


async def test_a_lane_whose_last_message_got_lost_on_its_way_is_broken_and_its_successor_has_it(
    bus: JetStreamBus, nats_url: str
) -> None:
    lane = await bus.take_over("m", "standard")
    assert await lane.pull(max_messages=2, timeout_s=0.1) == []
    await bus.submit("m", "standard", b"lost", message_id="1")
    await steal(nats_url, f"{lane_id('m')}-standard")
    assert await lane.pull(max_messages=2, timeout_s=0.1) == [], "it may still be on its way"
    with pytest.raises(LaneBroken, match="delivery 1 never came; 0 did"):
        await lane.pull(max_messages=2, timeout_s=0.1)
    successor = await bus.take_over("m", "standard")
    assert [p.payload for p in await pull_all(successor, 1)] == [b"lost"]


async def test_a_lane_that_gets_a_later_message_first_is_broken(
    bus: JetStreamBus, nats_url: str
) -> None:
    lane = await bus.take_over("m", "standard")
    await bus.submit("m", "standard", b"lost", message_id="1")
    await steal(nats_url, f"{lane_id('m')}-standard")
    await bus.submit("m", "standard", b"next", message_id="2")
    with pytest.raises(LaneBroken, match="delivery 2 came, and 1 did not"):
        await lane.pull(max_messages=2, timeout_s=1)
    successor = await bus.take_over("m", "standard")
    assert [p.payload for p in await pull_all(successor, 2)] == [b"lost", b"next"]


async def test_a_message_is_stored_once_however_often_it_is_submitted(bus: JetStreamBus) -> None:
    for _ in range(3):
        await bus.submit("m", "bulk", b"same", message_id="one")
    lane = await bus.take_over("m", "bulk")
    assert len(await pull_all(lane, 1)) == 1
    assert await lane.pull(max_messages=1, timeout_s=0.1) == []


async def test_lanes_do_not_see_each_others_messages(bus: JetStreamBus) -> None:
    await bus.submit("m", "standard", b"s", message_id="s")
    await bus.submit("m", "bulk", b"b", message_id="b")
    await bus.submit("other", "bulk", b"o", message_id="o")
    lane = await bus.take_over("m", "bulk")
    assert [p.payload for p in await pull_all(lane, 1)] == [b"b"]
    assert await lane.pull(max_messages=1, timeout_s=0.1) == []


async def test_a_lease_has_one_holder_and_its_epochs_only_grow(bus: JetStreamBus) -> None:
    first = await bus.acquire("leader.m", "a", ttl_s=5)
    with pytest.raises(LeaseTaken, match="held by a"):
        await bus.acquire("leader.m", "b", ttl_s=5)
    await bus.renew("leader.m", "a", ttl_s=5)
    await bus.release("leader.m")
    assert await bus.acquire("leader.m", "b", ttl_s=5) > first


async def test_a_lease_that_is_not_renewed_runs_out_and_its_old_holder_cannot_renew_it(
    bus: JetStreamBus, nats: NatsServer
) -> None:
    other = await connect(nats.url, name="other")
    first = await bus.acquire("leader.m", "a", ttl_s=1)

    async def taken_over() -> bool:
        try:
            return await other.acquire("leader.m", "b", ttl_s=5) > first
        except LeaseTaken:
            return False

    await eventually(taken_over, within_s=5)
    with pytest.raises(LeaseTaken):
        await bus.renew("leader.m", "a", ttl_s=1)
    await other.close()


async def test_a_renewal_whose_answer_got_lost_is_still_its_holders(
    bus: JetStreamBus, nats: NatsServer
) -> None:
    await bus.acquire("leader.m", "a", ttl_s=5)
    elsewhere = await connect(nats.url, name="stores a renewal that `bus` does not see")
    await elsewhere.renew("leader.m", "a", ttl_s=5)
    await bus.renew("leader.m", "a", ttl_s=5)
    with pytest.raises(LeaseTaken):
        await bus.acquire("leader.m", "b", ttl_s=5)
    await elsewhere.close()


async def test_cards_are_seen_by_those_who_watched_before_and_by_those_who_come_later(
    bus: JetStreamBus,
) -> None:
    early: dict[str, bytes] = {}
    late: dict[str, bytes] = {}
    await bus.watch_cards(early.__setitem__)
    await bus.put_card("m", b"1")
    await eventually(lambda: early == {lane_id("m"): b"1"})
    await bus.put_card("m", b"2")
    await bus.watch_cards(late.__setitem__)
    await eventually(lambda: early == late == {lane_id("m"): b"2"})


async def test_a_card_is_replaced_only_while_it_is_what_was_read(bus: JetStreamBus) -> None:
    seen: list[tuple[str, bytes]] = []
    await bus.watch_cards(lambda lane, card: seen.append((lane, card)))
    assert await bus.all_cards() == []
    assert await bus.get_card("Qwen/Qwen3") is None
    await bus.put_card("Qwen/Qwen3", b"1")
    await bus.put_card("模型", b"other")
    assert sorted(await bus.all_cards()) == [b"1", b"other"]
    assert not await bus.replace_card("Qwen/Qwen3", b"0", b"2")
    assert await bus.replace_card("Qwen/Qwen3", b"1", b"2")
    assert not await bus.replace_card("Qwen/Qwen3", b"1", None)
    assert await bus.replace_card("Qwen/Qwen3", b"2", None)
    assert not await bus.replace_card("Qwen/Qwen3", b"2", None)
    assert await bus.get_card("Qwen/Qwen3") is None
    assert await bus.all_cards() == [b"other"]
    lane = lane_id("Qwen/Qwen3")
    ours = [(lane, b"1"), (lane, b"2"), (lane, b"")]
    await eventually(lambda: [each for each in seen if each[0] == lane] == ours)


async def test_every_card_is_found_by_every_reading(bus: JetStreamBus) -> None:
    await bus.put_card("m", b"1")
    for _ in range(40):
        found = await asyncio.gather(*(bus.all_cards() for _ in range(20)))
        assert found == [[b"1"]] * 20


async def test_cards_are_read_and_replaced_by_a_connection_that_created_no_stores(
    bus: JetStreamBus, nats_url: str
) -> None:
    await bus.put_card("m", b"1")
    guest = await connect(nats_url, name="guest", replicas=None)
    assert await guest.all_cards() == [b"1"]
    assert await guest.replace_card("m", b"1", None)
    await guest.close()
    assert await bus.get_card("m") is None


async def test_a_broker_without_stores_has_no_cards(nats_url: str) -> None:
    guest = await connect(nats_url, name="guest", replicas=None)
    assert await guest.all_cards() == []
    await guest.close()


@pytest.mark.parametrize("model", ["Qwen/Qwen3-0.6B", "a.b.c", "a *", "模型", ">", 256 * "x"])
async def test_lane_lease_and_dead_letters_work_for_a_model_of_any_name(
    bus: JetStreamBus, model: str
) -> None:
    await bus.submit("other", "bulk", b"o", message_id="o")
    await bus.submit(model, "bulk", b"b", message_id="b")
    lane = await bus.take_over(model, "bulk")
    (pulled,) = await pull_all(lane, 1)
    assert pulled.payload == b"b"
    await lane.acknowledge(pulled.acknowledgement)
    assert await lane.pull(max_messages=1, timeout_s=0.1) == []
    await bus.store_dead_letter(model, b"letter")
    (listed,) = await bus.dead_letters(limit=9)
    assert (listed.lane, listed.sequence) == (lane_id(model), 1)
    assert await bus.dead_letter(1) == listed
    assert await bus.dead_letter(2) is None


async def test_what_an_earlier_version_left_in_a_lane_is_given_out_first(
    bus: JetStreamBus, nats_url: str
) -> None:
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    await jetstream.publish("headrace.requests.valley.standard", b"old")
    await jetstream.pull_subscribe(
        "headrace.requests.valley.standard", durable="valley-standard", stream="REQUESTS"
    )
    await client.close()
    await bus.submit("valley", "standard", b"new", message_id="n")
    for _ in range(2):  # the second leader finds what the first has not acknowledged
        lane = await bus.take_over("valley", "standard")
        pulled = await pull_all(lane, 2)
        assert [each.payload for each in pulled] == [b"old", b"new"]


async def test_a_tokenizer_bundle_of_megabytes_comes_back_whole(bus: JetStreamBus) -> None:
    bundle = bytes(range(256)) * 12_000
    await bus.put_tokenizer("digest", bundle)
    await bus.put_tokenizer("digest", bundle)
    assert await bus.get_tokenizer("digest") == bundle
    with pytest.raises(KeyError):
        await bus.get_tokenizer("other")


async def test_a_result_can_be_read_by_its_request_id(bus: JetStreamBus) -> None:
    await bus.put_result("r1", b"old")
    await bus.put_result("r1", b"new")
    assert await bus.get_result("r1") == b"new"
    assert await bus.get_result("r2") is None


async def test_a_result_is_kept_for_as_long_as_was_requested(bus: JetStreamBus) -> None:
    await bus.put_result("short", b"1", kept_s=1.0)
    await bus.put_result("long", b"2", kept_s=600.0)

    async def is_gone() -> bool:
        return await bus.get_result("short") is None

    await eventually(is_gone, within_s=30.0)
    assert await bus.get_result("long") == b"2"


async def test_cached_responses_are_kept_by_model_for_a_time_and_purged(bus: JetStreamBus) -> None:
    await bus.put_response("toy", "ab", b"1", kept_s=600.0)
    await bus.put_response("toy", "cd", b"2", kept_s=1.0)
    await bus.put_response("hill", "ab", b"3", kept_s=600.0)
    assert await bus.get_response("toy", "ab") == b"1"
    assert await bus.get_response("toy", "ef") is None

    async def is_gone() -> bool:
        return await bus.get_response("toy", "cd") is None

    await eventually(is_gone, within_s=30.0)
    await bus.purge_responses("toy")
    assert await bus.get_response("toy", "ab") is None
    assert await bus.get_response("hill", "ab") == b"3"


async def test_what_was_stored_survives_a_killed_broker_and_connections_heal(
    bus: JetStreamBus, nats: NatsServer
) -> None:
    await bus.submit("m", "standard", b"kept", message_id="1")
    lane = await bus.take_over("m", "standard")
    await nats.kill()
    await eventually(lambda: not bus.connected)
    with pytest.raises(BusUnavailable):
        await bus.request("headrace.test", b"", timeout_s=0.2)
    await nats.start()
    await eventually(lambda: bus.connected)
    assert [p.payload for p in await pull_all(lane, 1)] == [b"kept"]


async def test_what_a_silent_server_does_not_answer_is_stored_once_by_another(
    tmp_path: Path,
) -> None:
    async with nats_cluster(tmp_path) as servers:
        bus = await connect(",".join(each.url for each in servers), name="test", replicas=3)
        silent = next(each for each in servers if each.url.endswith(bus.server))
        await until_stored(bus, "before")
        silent.freeze()
        await until_stored(bus, "after")
        assert bus.server != silent.url.removeprefix("nats://")
        lane = await bus.take_over("m", "standard")
        assert [one.payload for one in await pull_all(lane, 2)] == [b"before", b"after"]
        assert await lane.pull(max_messages=1, timeout_s=0.5) == []
        await bus.close()


async def until_stored(bus: JetStreamBus, text: str) -> None:
    """As gateways do: again and again under one id, for a cluster elects its leaders in seconds."""
    async with asyncio.timeout(30):
        while True:
            try:
                await bus.submit("m", "standard", text.encode(), message_id=text)
            except BusUnavailable:
                continue
            return

"""Stored responses and conversations over a real nats-server, and in memory for other tests."""

from __future__ import annotations

import pytest

from headrace.bus.jetstream import JetStreamBus
from headrace.bus.objects import Conversations, PartChanged, StoredPart
from helpers.eventually import eventually
from helpers.memory_conversations import MemoryConversations


@pytest.fixture(params=["broker", "memory"])
def store(request: pytest.FixtureRequest, bus: JetStreamBus) -> Conversations:
    return bus if request.param == "broker" else MemoryConversations()


async def _read(store: Conversations, tenant: str, item_id: str, part: str) -> bytes | None:
    found = await store.get_part(tenant, item_id, part)
    return None if found is None else found.payload


async def test_parts_are_of_a_tenant_and_an_item_and_the_last_version_is_read(
    store: Conversations,
) -> None:
    await store.put_part("a", "resp_1", "request", b"1", kept_s=600.0)
    await store.put_part("a", "resp_1", "result", b"2", kept_s=600.0)
    await store.put_part("a.b", "resp_1", "request", b"3", kept_s=600.0)
    await store.put_part("a", "resp_1", "request", b"44", kept_s=600.0)
    assert await _read(store, "a", "resp_1", "request") == b"44"
    assert await _read(store, "a", "resp_1", "result") == b"2"
    assert await _read(store, "a.b", "resp_1", "request") == b"3"
    assert await _read(store, "a", "resp_2", "request") is None
    await store.delete_item("a", "resp_1")
    assert await _read(store, "a", "resp_1", "request") is None
    assert await _read(store, "a", "resp_1", "result") is None
    assert await _read(store, "a.b", "resp_1", "request") == b"3"
    await store.delete_item("a", "resp_1")


async def test_a_part_is_replaced_only_as_it_was_read(store: Conversations) -> None:
    await store.replace_part("a", "conv_1", "items", b"1", after=0, kept_s=600.0)
    with pytest.raises(PartChanged):
        await store.replace_part("a", "conv_1", "items", b"2", after=0, kept_s=600.0)
    first = await store.get_part("a", "conv_1", "items")
    assert isinstance(first, StoredPart)
    await store.put_part("a", "conv_2", "items", b"other", kept_s=600.0)
    await store.replace_part("a", "conv_1", "items", b"22", after=first.sequence, kept_s=600.0)
    with pytest.raises(PartChanged):
        await store.replace_part("a", "conv_1", "items", b"3", after=first.sequence, kept_s=600.0)
    assert await _read(store, "a", "conv_1", "items") == b"22"
    sizes = [each.bytes for each in await store.stored_parts("a") if each.item_id == "conv_1"]
    assert sizes == [2]
    await store.delete_item("a", "conv_1")
    await store.replace_part("a", "conv_1", "items", b"4", after=0, kept_s=600.0)
    assert await _read(store, "a", "conv_1", "items") == b"4"


async def test_the_parts_of_a_tenant_are_known_without_reading_them_and_the_oldest_go(
    store: Conversations,
) -> None:
    for number in range(6):
        await store.put_part("a", f"resp_{number}", "request", b"x" * number, kept_s=600.0)
        await store.put_part("b", f"resp_{number}", "request", b"", kept_s=600.0)
    sizes = {each.item_id: each.bytes for each in await store.stored_parts("a")}
    assert sizes == {f"resp_{number}": number for number in range(6)}
    await store.keep_newest("a", 2)
    assert [each.item_id for each in await store.stored_parts("a")] == ["resp_4", "resp_5"]
    assert len(await store.stored_parts("b")) == 6
    await store.keep_newest("a", 0)
    assert await store.stored_parts("a") == []
    assert len(await store.stored_parts("b")) == 6


async def test_a_part_is_kept_for_its_time(bus: JetStreamBus) -> None:
    await bus.put_part("a", "resp_1", "request", b"1", kept_s=1.0)

    async def is_gone() -> bool:
        return await bus.get_part("a", "resp_1", "request") is None

    await eventually(is_gone, within_s=30.0)

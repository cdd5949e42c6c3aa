"""What a tenant may store: the oldest go first, and other tenants' parts stay."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.bus.objects import PartSize
from headrace.clock import SystemClock
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.conversations.bounds import CHECKED_AFTER_S, AddedParts, newest_within
from headrace_gateway.conversations.store import ConversationStore
from helpers.memory_conversations import MemoryConversations


def sizes(*found: int) -> list[PartSize]:
    return [PartSize(f"resp_{at}", at, size) for at, size in enumerate(found)]


def test_the_newest_are_kept() -> None:
    stored = sizes(50, 30, 20, 40, 10)
    assert newest_within(stored, max_bytes=100, max_parts=3) == 3
    assert newest_within(stored, max_bytes=60, max_parts=3) == 2
    assert newest_within(stored, max_bytes=150, max_parts=9) == 5
    assert newest_within(stored, max_bytes=5, max_parts=3) == 0


@given(st.lists(st.integers(0, 50)), st.integers(1, 100), st.integers(1, 8))
def test_no_more_than_the_bounds_and_no_fewer_are_kept(
    found: list[int], max_bytes: int, max_parts: int
) -> None:
    kept = newest_within(sizes(*found), max_bytes=max_bytes, max_parts=max_parts)
    newest = found[len(found) - kept :]
    assert sum(newest) <= max_bytes
    assert kept <= max_parts
    if kept < min(len(found), max_parts):
        assert sum(newest) + found[-kept - 1] > max_bytes


def test_bounds_are_checked_after_a_sixteenth_and_after_a_time() -> None:
    added = AddedParts(max_bytes=160, max_parts=100)
    assert not added.add("a", 9, now_s=0.0)
    assert added.add("a", 1, now_s=0.0)
    assert [added.add("a", 0, now_s=0.0) for _ in range(7)] == [*[False] * 6, True]
    assert not added.add("b", 1, now_s=0.0)
    assert added.add("b", 1, now_s=CHECKED_AFTER_S)


async def test_responses_beyond_the_bounds_of_their_tenant_are_not_found_any_more() -> None:
    memory = MemoryConversations()
    settings = GatewaySettings(stored_responses_parts=4)
    store = ConversationStore(settings, memory, SystemClock())
    described: dict[str, Any] = {"input": []}
    await store.put_description("other", "req_0", described)
    for number in range(6):
        await store.put_description("acme", f"req_{number}", described)
    found = [await store.description("acme", f"req_{number}") for number in range(6)]
    assert found == [None, None, *[described] * 4]
    assert await store.description("other", "req_0") == described
    assert await store.description("acme", "req_*") is None

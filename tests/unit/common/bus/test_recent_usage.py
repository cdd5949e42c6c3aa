"""What the broker published lately follows a position, or is not known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.bus.jetstream.usage import RECENT_MESSAGES, RecentUsage

STREAM, LATER = "2026-11-30T18:51:52.123456789Z", "2026-11-30T18:51:52.2Z"
OF_THE_NEXT = "2026-11-30T18:51:53Z"


def payloads(recent: RecentUsage, after: int, max_messages: int = 100) -> list[bytes]:
    return [each.payload for each in recent.after(after, max_messages)]


@given(
    st.lists(st.integers(1, 30) | st.just(0)),
    st.integers(0, 40),
    st.integers(1, 5),
)
def test_only_an_unbroken_run_from_the_position_on_is_returned(
    steps: list[int], after: int, max_messages: int
) -> None:
    """A step of 0 is the message that follows; else any other one comes: a gap, or one again."""
    recent, last = RecentUsage(), 0
    recent.begin(STREAM)
    for step in steps:
        last = step or last + 1
        recent.add(last, LATER, b"%d" % last)
    found = recent.after(after, max_messages)
    assert len(found) <= max_messages
    expected = range(after + 1, after + 1 + len(found))
    assert [each.position.sequence for each in found] == list(expected)
    assert [each.payload for each in found] == [b"%d" % n for n in expected]
    if after == recent.last - 1:
        assert found


def test_the_newest_are_kept() -> None:
    recent = RecentUsage()
    recent.begin(STREAM)
    for sequence in range(1, RECENT_MESSAGES + 3):
        recent.add(sequence, LATER, b"x")
    assert payloads(recent, 1) == []
    assert len(payloads(recent, 2, RECENT_MESSAGES)) == RECENT_MESSAGES
    recent.add(RECENT_MESSAGES + 3, LATER, bytes(9 << 20))
    assert payloads(recent, RECENT_MESSAGES) == payloads(recent, RECENT_MESSAGES + 2) == []


def test_nothing_of_a_former_stream_is_of_the_next() -> None:
    recent = RecentUsage()
    recent.begin(STREAM)
    recent.add(1, LATER, b"former")
    recent.begin(STREAM)
    assert payloads(recent, 0) == [b"former"]
    recent.begin(OF_THE_NEXT)
    recent.add(1, LATER, b"former")
    assert payloads(recent, 0) == []
    recent.add(1, OF_THE_NEXT, b"next")
    (found,) = recent.after(0, 1)
    assert (found.position.stream, found.payload) == (OF_THE_NEXT, b"next")

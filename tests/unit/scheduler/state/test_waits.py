"""The earliest is known at any moment, and who has left leaves nothing behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_scheduler.state.waits import SLACK, Earliest

MOVES = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.floats(0, 10)))


@given(MOVES)
def test_it_is_the_least_of_those_that_are_there(moves: list[tuple[str, float | None]]) -> None:
    earliest, there = Earliest(), dict[str, float]()
    for request_id, at_s in moves:
        if at_s is not None:
            earliest.put(request_id, at_s)
            there[request_id] = at_s
        elif request_id in there:
            earliest.remove(request_id)
            del there[request_id]
        assert earliest.at_s == min(there.values(), default=None)
        earliest.check_integrity(set(there))


def test_what_has_left_takes_no_room_however_many_come_and_go() -> None:
    earliest = Earliest()
    earliest.put("stays", 0.0)
    for n in range(3 * SLACK):
        earliest.put(f"r{n}", 1.0 + n)
        earliest.remove(f"r{n}")
    earliest.put("last", 5000.0)
    assert earliest.at_s == 0.0
    assert len(earliest) <= SLACK + 4

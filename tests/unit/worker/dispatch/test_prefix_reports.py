"""Schedulers that hear all that is told know what is held, up to the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.prefixes import short_name
from headrace_worker.dispatch.prefix_reports import ReportedBlocks

NAMES = [bytes([n]) * 16 for n in range(8)]


def test_what_is_new_is_told_once_and_what_is_gone_too() -> None:
    told = ReportedBlocks(10)
    first = told.tell(NAMES[:2])
    assert (first.held, first.dropped) == ([*map(short_name, NAMES[:2])], [])
    second = told.tell(NAMES[1:3])
    assert (second.held, second.dropped) == ([short_name(NAMES[2])], [short_name(NAMES[0])])


def test_beyond_the_bound_beginnings_are_told_and_the_rest_when_there_is_room() -> None:
    told = ReportedBlocks(2)
    assert told.tell(NAMES[:3]).held == [*map(short_name, NAMES[:2])]
    assert told.tell(NAMES[1:4]).held == [short_name(NAMES[2])]


@given(st.integers(0, 8), st.lists(st.lists(st.sampled_from(NAMES), unique=True)))
def test_who_hears_all_knows_what_is_held(limit: int, moments: list[list[bytes]]) -> None:
    told, known = ReportedBlocks(limit), set[int]()
    for held in moments:
        delta = told.tell(held)
        assert known >= set(delta.dropped)
        known = known - set(delta.dropped) | set(delta.held)
        assert known == set(told.names)
        assert known <= set(map(short_name, held))
        assert len(known) == min(limit, len(held))

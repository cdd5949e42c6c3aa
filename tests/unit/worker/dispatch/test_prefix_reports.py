"""Schedulers that receive all reports know what is held, up to the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.prefixes import short_hash
from headrace_worker.dispatch.prefix_reports import ReportedBlocks

NAMES = [bytes([n]) * 16 for n in range(8)]


def test_what_is_new_is_reported_once_and_what_is_gone_too() -> None:
    reported = ReportedBlocks(10)
    first = reported.update(NAMES[:2])
    assert (first.held, first.dropped) == ([*map(short_hash, NAMES[:2])], [])
    second = reported.update(NAMES[1:3])
    assert (second.held, second.dropped) == ([short_hash(NAMES[2])], [short_hash(NAMES[0])])


def test_beyond_the_bound_prefixes_are_reported_first_and_the_rest_once_there_is_room() -> None:
    reported = ReportedBlocks(2)
    assert reported.update(NAMES[:3]).held == [*map(short_hash, NAMES[:2])]
    assert reported.update(NAMES[1:4]).held == [short_hash(NAMES[2])]


@given(st.integers(0, 8), st.lists(st.lists(st.sampled_from(NAMES), unique=True)))
def test_a_reader_of_all_deltas_knows_what_is_held(limit: int, moments: list[list[bytes]]) -> None:
    reported, known = ReportedBlocks(limit), set[int]()
    for held in moments:
        delta = reported.update(held)
        assert known >= set(delta.dropped)
        known = known - set(delta.dropped) | set(delta.held)
        assert known == set(reported.names)
        assert known <= set(map(short_hash, held))
        assert len(known) == min(limit, len(held))

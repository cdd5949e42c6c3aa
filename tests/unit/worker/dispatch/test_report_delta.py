"""A reader of some of a worker's reports knows what ran at the last one that it could follow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_worker.dispatch.report_delta import REPORTS_PER_CHANGE, ChangeTracker, ReportDelta

RUNNING = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3))


def test_the_first_report_names_everything() -> None:
    assert ChangeTracker().delta(1, {"a": 1}, full=False) == ReportDelta(0, {"a": 1})


def test_later_ones_name_what_has_begun_and_what_has_ended() -> None:
    changes = ChangeTracker()
    changes.delta(1, {"a": 1, "b": 1, "c": 1}, full=False)
    delta = changes.delta(2, {"b": 1, "c": 1, "d": 1}, full=False)
    assert delta.since == 1
    assert (delta.running, delta.ended) == ({"d": 1}, ("a",))


def test_a_change_is_named_in_several_reports_and_then_no_more() -> None:
    changes = ChangeTracker()
    changes.delta(1, {"a": 1, "b": 1}, full=False)
    after = {"a": 1, "b": 1, "c": 1}
    delta = [changes.delta(2 + i, after, full=False) for i in range(REPORTS_PER_CHANGE + 1)]
    assert [list(each.running) for each in delta] == [["c"]] * REPORTS_PER_CHANGE + [[]]


def test_another_attempt_of_what_runs_is_a_change() -> None:
    changes = ChangeTracker()
    changes.delta(1, {"a": 1, "b": 1}, full=False)
    assert changes.delta(2, {"a": 2, "b": 1}, full=False).running == {"a": 2}


def test_where_everything_has_changed_everything_is_named() -> None:
    changes = ChangeTracker()
    changes.delta(1, {"a": 1}, full=False)
    assert changes.delta(2, {"b": 1}, full=False) == ReportDelta(0, {"b": 1})


@given(st.lists(st.tuples(RUNNING, st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_whatever_is_lost_what_can_be_followed_is_true(
    reports: list[tuple[dict[str, int], bool, bool]],
) -> None:
    changes, number_known = ChangeTracker(), 0
    known: dict[str, int] | None = None
    for number, (running, full, is_lost) in enumerate(reports, start=1):
        delta = changes.delta(number, dict(running), full=full)
        if is_lost:
            continue
        if not delta.since:
            known, number_known = dict(delta.running), number
        elif known is not None and number_known >= delta.since:
            kept = {i: a for i, a in known.items() if i not in delta.ended}
            known, number_known = {**kept, **delta.running}, number
        if number_known == number:
            assert known == running
        elif known is not None:
            assert number - number_known > REPORTS_PER_CHANGE, "a loss that was to be made up for"

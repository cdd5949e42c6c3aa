"""Which workers hold which prefixes, whatever is reported in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.internal.v1.reports_pb2 import PrefixReport
from headrace.prefixes import BLOCK_TOKENS
from headrace_scheduler.request.prefixes import NO_MATCH, PrefixDirectory

NAMES = st.lists(st.integers(0, 6), max_size=5)
REPORTS = st.lists(st.tuples(st.sampled_from("vw"), st.booleans(), NAMES, NAMES))


def directory_of(*reports: PrefixReport) -> PrefixDirectory:
    directory = PrefixDirectory()
    for report in reports:
        directory.apply_report(report)
    return directory


def test_the_longest_prefix_is_found_with_all_of_its_holders() -> None:
    directory = directory_of(
        PrefixReport(worker_id="v", held=[1, 2]), PrefixReport(worker_id="w", held=[1, 2, 3])
    )
    found = directory.longest_match([1, 2, 3, 4])
    assert (found.tokens, found.worker_ids) == (3 * BLOCK_TOKENS, {"w"})
    found = directory.longest_match([1, 2, 9])
    assert (found.tokens, found.worker_ids) == (2 * BLOCK_TOKENS, {"v", "w"})
    assert directory.longest_match([9, 1]) is NO_MATCH


@given(REPORTS)
def test_it_is_what_was_reported_and_nothing_is_left_of_a_worker_that_is_gone(
    reports: list[tuple[str, bool, list[int], list[int]]],
) -> None:
    directory = PrefixDirectory()
    reported: dict[str, set[int]] = {"v": set(), "w": set()}
    for worker_id, full, held, dropped in reports:
        report = PrefixReport(worker_id=worker_id, full=full, held=held, dropped=dropped)
        directory.apply_report(report)
        before = set() if full else reported[worker_id] - set(dropped)
        reported[worker_id] = before | set(held)
        directory.check_integrity()
        for name in range(7):
            holders = {worker for worker, names in reported.items() if name in names}
            assert directory.longest_match([name]).worker_ids == holders
    for worker_id in reported:
        directory.forget(worker_id)
    assert not directory

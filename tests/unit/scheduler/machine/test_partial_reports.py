"""Reports that name only what has changed: followed where nothing is missing, else passed over."""

from __future__ import annotations

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.runtime.report_cache import MAX_CHANGES, ReportCache
from headrace_scheduler.state.events import CancelOnWorker, Dispatch, SendNotice
from helpers.scheduler_events import EPOCH, Bench, reported


def running(*request_ids: str) -> tuple[Bench, dict[str, int]]:
    """A bench on which these run on worker `w`, as of its report 2; and their attempts."""
    bench = Bench(SchedulerSettings(settle_grace_s=2.0))
    bench.worker()
    bench.submit(*request_ids)
    attempts = {r.request_id: r.attempt for r in bench.only(Dispatch).message.requests}
    bench.accept()
    bench.worker(number=2, running=attempts, free=4 - len(attempts), counted=(EPOCH, 1))
    return bench, attempts


def asked_for(bench: Bench) -> list[str]:
    """Return the requests that are fenced when the grace for settlements is over."""
    bench.after(2.1)
    return [request_id for notice in bench.given(SendNotice) for request_id, _ in notice.fences]


def test_a_request_that_a_report_names_as_ended_vanishes() -> None:
    bench, _ = running("a", "b")
    bench.worker(number=3, since=2, ended=("a",), free=3, counted=(EPOCH, 1))
    assert asked_for(bench) == ["a"]


def test_a_request_that_a_report_leaves_out_runs_on() -> None:
    bench, _ = running("a", "b")
    bench.worker(number=3, since=2, free=2, counted=(EPOCH, 1))
    assert asked_for(bench) == []


def test_a_request_that_began_and_ended_between_two_reports_vanishes() -> None:
    bench, _ = running("a")
    bench.submit("b")
    bench.accept()
    bench.worker(number=3, since=2, free=3, counted=(EPOCH, 2))
    assert asked_for(bench) == ["b"]


def test_a_report_after_a_gap_is_ignored() -> None:
    bench, _ = running("a")
    bench.worker(number=9, since=5, ended=("a",), free=0, counted=(EPOCH, 1))
    assert bench.observer.counts["ignored: report with a gap"] == 1
    assert bench.machine.fleet_statistics() == (1, 3)


def test_a_report_is_ignored_if_the_one_before_it_was_lost() -> None:
    bench, _ = running("a")
    bench.worker(number=4, since=3, ended=("a",), free=0, counted=(EPOCH, 1))
    assert bench.observer.counts["ignored: report with a gap"] == 1


def test_a_delta_that_repeats_applied_changes_is_as_good_as_the_next() -> None:
    bench, _ = running("a", "b")
    bench.worker(number=6, since=1, ended=("a",), free=3, counted=(EPOCH, 1))
    assert bench.machine.fleet_statistics() == (1, 3)


def test_a_delta_report_of_an_unknown_worker_adds_no_worker() -> None:
    bench = Bench()
    bench.worker(number=5, since=4)
    assert bench.machine.fleet_statistics() == (0, 0)


def test_an_unknown_request_that_is_reported_once_is_adopted_when_its_message_is_read() -> None:
    bench = Bench(holding=True)
    bench.worker(number=1)
    bench.worker(number=2, since=1, running={"a": 3}, free=3)
    bench.worker(number=3, since=2, free=3)
    bench.submit("a")
    assert bench.observer.counts["adopted"] == 1


def test_an_end_that_is_named_after_an_adoption_elsewhere_is_not_its_end() -> None:
    bench, attempts = running("a")
    bench.worker("v", number=1, running={"a": attempts["a"] + 1}, free=3)
    bench.worker(number=3, since=2, ended=("a",), counted=(EPOCH, 1))
    found = bench.machine.find("a")
    assert found is not None
    assert bench.machine.worker_name(found) == "name of v"
    assert bench.given(CancelOnWorker) == []


def test_a_later_leader_gets_all_reports_since_the_last_full_one() -> None:
    report_cache = ReportCache(kept_s=3.0)
    for number, since in ((1, 0), (2, 1), (3, 0), (4, 3), (5, 3)):
        report_cache.add_worker_report(reported("w", number, since=since, received_s=0.1 * number))
    assert [e.report.number for e in report_cache.recent(1.0)] == [3, 4, 5]  # type: ignore[union-attr]
    assert report_cache.recent(9.0) == []


def test_what_is_kept_for_a_later_leader_is_bounded() -> None:
    report_cache = ReportCache(kept_s=3.0)
    report_cache.add_worker_report(reported("w", 1, received_s=0.0))
    for number in range(2, 2 + MAX_CHANGES):
        report_cache.add_worker_report(reported("w", number, since=1, received_s=0.0))
    assert report_cache.recent(1.0) == []

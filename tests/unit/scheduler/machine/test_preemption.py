"""Bulk requests are parked for more urgent ones that would wait, and resume with their output."""

from __future__ import annotations

import pytest

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import Dispatch, ParkOnWorker, SendNotice
from helpers.scheduler_events import EPOCH, Bench, answer, parked, point


class Full:
    """A worker of four slots, all of them held by bulk requests."""

    def __init__(self, settings: SchedulerSettings | None = None, *, parks: bool = True) -> None:
        self.bench = Bench(settings)
        self.parks = parks
        self.running: dict[str, int] = {}
        self.number = 0
        self.counted = 0
        self.report()
        self.bench.submit("a", "b", "c", "d", priority="bulk")
        self.take()
        self.report()

    def take(self) -> list[str]:
        """The worker takes what it was just given; returns what that was."""
        taken = []
        for dispatch in self.bench.given(Dispatch):
            self.counted = dispatch.number
            records = dispatch.message.requests
            self.running |= {r.request_id: r.attempt for r in records}
            taken += [r.request_id for r in records]
        self.bench.accept()
        return taken

    def report(self) -> None:
        self.number += 1
        self.bench.worker(
            number=self.number,
            free=4 - len(self.running),
            running=dict(self.running),
            counted=(EPOCH, self.counted),
            parks=self.parks,
        )

    def park_requested(self) -> list[str]:
        return [command.request_id for command in self.bench.given(ParkOnWorker)]

    def park(self, request_id: str, *output_ids: int) -> None:
        """The worker parks the request, sends its resume point, and reports."""
        attempt = self.running.pop(request_id)
        where = point(request_id, attempt, list(output_ids))
        self.bench.apply(parked("w", where))
        self.bench.apply(answer(self.bench.only(SendNotice), where))

    def end(self, request_id: str) -> None:
        del self.running[request_id]
        self.bench.settle(request_id)
        self.report()


def test_the_newest_bulk_request_is_parked_for_an_interactive_one_that_finds_no_slot() -> None:
    full = Full()
    full.bench.submit("urgent", priority="interactive")
    assert full.park_requested() == ["d"]
    full.park("d", 1, 2)
    full.report()
    assert full.take() == ["urgent"]
    assert full.bench.observer.counts["returned: preempted"] == 1


def test_what_was_parked_goes_on_from_its_output_with_no_failure_counted() -> None:
    full = Full()
    first = full.running["d"]
    full.bench.submit("urgent", priority="interactive")
    full.park("d", 1, 2)
    full.report()
    full.take()
    full.report()
    full.end("urgent")
    (record,) = full.bench.only(Dispatch).message.requests
    assert record.request_id == "d"
    assert list(record.progress[0].output_ids) == [1, 2]
    assert record.attempt > first
    assert record.failures == 0


def test_one_is_parked_for_each_slot_that_is_needed_and_no_more() -> None:
    full = Full()
    full.bench.submit("u1", "u2", priority="interactive")
    assert full.park_requested() == ["d", "c"]
    full.report()
    assert full.park_requested() == []
    full.park("d")
    assert full.park_requested() == []
    full.report()
    assert full.take() == ["u1"]
    assert full.park_requested() == []
    full.park("c")
    full.report()
    assert full.take() == ["u2"]
    full.report()
    assert full.bench.observer.counts["preempted"] == 2


def test_a_slot_that_a_report_shows_before_the_resume_point_comes_is_not_counted_twice() -> None:
    full = Full()
    full.bench.submit("u1", priority="interactive")
    attempt = full.running.pop("d")
    full.report()
    assert full.take() == ["u1"]
    full.bench.submit("u2", priority="interactive")
    assert full.park_requested() == ["c"]
    full.bench.apply(parked("w", point("d", attempt)))
    assert full.park_requested() == []


def test_choices_that_run_side_by_side_have_as_many_parked() -> None:
    full = Full()
    full.bench.submit("urgent", priority="interactive", n=3)
    assert full.park_requested() == ["d", "c", "b"]


def test_nothing_is_parked_where_all_of_it_would_not_make_room() -> None:
    full = Full()
    full.bench.submit("too large", priority="interactive", n=5)
    full.bench.submit("other weights", priority="interactive", digest="w2")
    assert full.bench.observer.counts["preempted"] == 0


def test_a_standard_request_has_a_bulk_one_parked_and_starts_before_it() -> None:
    full = Full()
    full.bench.submit("chat", priority="standard")
    assert full.park_requested() == ["d"]
    full.park("d", 1, 2)
    full.report()
    assert full.take() == ["chat"]


def test_an_interactive_request_gets_the_slot_that_a_standard_one_had_cleared() -> None:
    full = Full()
    full.bench.submit("chat", priority="standard")
    assert full.park_requested() == ["d"]
    full.bench.submit("urgent", priority="interactive")
    assert full.park_requested() == ["c"]
    full.park("d")
    full.report()
    assert full.take() == ["urgent"]
    full.park("c")
    full.report()
    assert full.take() == ["chat"]
    assert full.bench.observer.counts["preempted"] == 2


def test_nothing_is_parked_for_bulk_requests_or_probes() -> None:
    full = Full()
    full.bench.submit("e", priority="bulk")
    full.bench.submit("canary", priority="interactive", probe=True)
    assert full.park_requested() == []


def test_requests_for_weights_that_no_worker_has_do_not_hide_those_of_another_lane() -> None:
    full = Full()
    full.bench.submit(*(f"u{i}" for i in range(100)), priority="interactive", digest="w2")
    full.bench.submit("chat", priority="standard")
    assert full.park_requested() == ["d"]


def test_no_standard_request_is_parked() -> None:
    bench = Bench()
    bench.worker(free=1, total=1)
    bench.submit("a", priority="standard")
    attempt = bench.only(Dispatch).message.requests[0].attempt
    bench.accept()
    bench.worker(number=2, free=0, total=1, running={"a": attempt}, counted=(EPOCH, 1))
    bench.submit("urgent", priority="interactive")
    assert not bench.given(ParkOnWorker)


@pytest.mark.parametrize("priority", ["interactive", "standard"])
def test_bulk_requests_leave_a_slot_free_where_the_engine_cannot_park_them(priority: str) -> None:
    full = Full(parks=False)
    assert sorted(full.running) == ["a", "b", "c"]
    full.bench.submit("urgent", priority=priority)
    assert full.take() == ["urgent"]
    full.report()
    full.bench.submit("urgent, too", priority=priority)
    assert full.park_requested() == []
    full.end("urgent")
    assert full.take() == ["urgent, too"]


def test_one_bulk_request_may_have_every_slot_of_an_engine_that_cannot_park_it() -> None:
    bench = Bench()
    bench.worker(free=4, total=4, parks=False)
    bench.submit("large", priority="bulk", n=4)
    assert [r.request_id for r in bench.only(Dispatch).message.requests] == ["large"]


def test_nothing_is_parked_where_preemption_is_off() -> None:
    for parks in (True, False):
        full = Full(SchedulerSettings(preemption=False), parks=parks)
        assert len(full.running) == 4
        full.bench.submit("urgent", priority="interactive")
        assert full.park_requested() == []


def test_a_park_is_repeated_while_the_worker_still_runs_the_victim() -> None:
    full = Full()
    full.bench.submit("urgent", priority="interactive")
    assert full.park_requested() == ["d"]
    full.report()
    assert full.park_requested() == []
    full.bench.after(1.0)
    assert full.park_requested() == ["d"]
    assert full.bench.observer.counts["preempted"] == 1


def test_a_park_is_not_repeated_once_the_victim_or_the_urgent_request_is_gone() -> None:
    full = Full()
    full.bench.submit("urgent", priority="interactive")
    assert full.park_requested() == ["d"]
    full.bench.settle("d", code=1)
    full.bench.after(1.0)
    assert "d" not in full.park_requested()
    full.bench.settle("urgent", code=1)
    full.bench.after(1.0)
    assert full.park_requested() == []


def test_a_victim_starts_after_the_one_it_was_parked_for_whatever_its_lane_has_earned() -> None:
    full = Full(SchedulerSettings(ageing_s=0.0, floor_share=1.0))
    full.bench.submit("u1", "u2", priority="interactive")
    full.park("d")
    full.park("c")
    full.report()
    assert full.take() == ["u1", "u2"]


def test_a_victim_does_not_wait_for_a_request_that_left() -> None:
    full = Full()
    full.bench.submit("urgent", priority="interactive")
    full.bench.settle("urgent", code=1)
    full.park("d")
    full.report()
    assert full.take() == ["d"]


def test_a_request_that_was_parked_so_often_runs_by_its_lanes_floor_the_others_do_not() -> None:
    full = Full(SchedulerSettings(max_preemptions=1))
    for i in range(4):
        full.bench.submit(f"u{i}", priority="interactive")
        (victim,) = full.park_requested()
        full.park(victim)
        full.report()
        assert full.take() == [f"u{i}"]
        full.report()
        full.end(f"u{i}")
        assert full.take() == [victim]
        full.report()
        assert victim == "dccc"[i]
    full.end("d")
    full.bench.submit("last", priority="interactive")
    assert full.take() == ["last"]


def test_under_endless_urgent_load_the_bulk_lane_keeps_its_share_of_the_slots() -> None:
    full = Full(
        SchedulerSettings(ageing_s=0.0, floor_share=0.25, max_preemptions=3, gateway_silence_s=1e9)
    )
    bulk, urgent_ended = [], 0
    for i in range(100):
        full.bench.submit(f"u{i}", priority="interactive")
        full.bench.after(1.0)  # every park that no report has confirmed is sent again
        for request_id in full.park_requested():
            full.park(request_id)
        full.report()
        full.take()
        full.report()
        if urgent := [r for r in full.running if r.startswith("u")]:
            full.end(urgent[0])
            urgent_ended += 1
            full.take()
            full.report()
        bulk.append([r for r in full.running if not r.startswith("u")])
        full.bench.submit(f"u{i}-too", priority="interactive")
    settled_down = bulk[20:]
    assert all(len(running) == 1 for running in settled_down)
    assert settled_down[0] == settled_down[-1]
    assert urgent_ended == 100

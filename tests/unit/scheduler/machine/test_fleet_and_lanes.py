"""Small parts of the machine: lanes in order, progress by choice, reports as figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace.v1.common_pb2 import FinishReason, Priority
from headrace_scheduler.machine.state_machine import LaneStatistics, Leadership
from headrace_scheduler.machine.wait_estimator import TenantWaitEstimate, WaitEstimate
from headrace_scheduler.request.live_request import longest_progress
from headrace_scheduler.runtime.lane_reports import lane_report
from headrace_scheduler.runtime.report_cache import ReportCache
from headrace_scheduler.state.events import Dispatch
from headrace_scheduler.state.tenant_shares import QueueMark
from helpers.scheduler_events import Bench, gateway_reported, reported


def test_a_lane_keeps_the_order_of_the_stream_whatever_the_order_of_events() -> None:
    from helpers.scheduler_events import submitted

    bench = Bench()
    bench.apply(submitted("c", 3), submitted("a", 1), submitted("b", 2))
    bench.worker()
    (dispatch,) = bench.commands
    assert [r.request_id for r in dispatch.message.requests] == ["a", "b", "c"]  # type: ignore[union-attr]


def test_what_no_empty_worker_of_this_size_and_weights_could_run_delays_no_other() -> None:
    bench = Bench()
    bench.submit("wide", n=5)
    bench.submit("of other weights", digest="w2")
    bench.submit("for an adapter", adapter="x")
    bench.submit("a", digest="w1")
    bench.submit("b")
    bench.worker(free=4, total=4, digest="w1")
    (dispatch,) = bench.given(Dispatch)
    assert [r.request_id for r in dispatch.message.requests] == ["a", "b"]


def test_of_two_accounts_of_a_choice_the_longer_counts_and_of_equals_the_finished() -> None:
    stop = FinishReason.FINISH_REASON_STOP
    accounts = [
        ChoiceProgress(choice=1, output_ids=[1]),
        ChoiceProgress(choice=0, output_ids=[1, 2]),
        ChoiceProgress(choice=1, output_ids=[1], finish_reason=stop),
        ChoiceProgress(choice=0, output_ids=[1]),
        ChoiceProgress(choice=2, output_ids=[9]),
    ]
    best = longest_progress(accounts, choices=2)
    assert [(p.choice, len(p.output_ids), p.finish_reason) for p in best] == [
        (0, 2, 0),
        (1, 1, stop),
    ]


def test_a_lane_report_leaves_out_a_wait_that_is_unknown() -> None:
    leadership = Leadership("s", "tiny", 3, 0.0, 0.0)
    figures = [
        LaneStatistics(
            "interactive",
            2,
            1,
            0.5,
            WaitEstimate(1.25, 0.5),
            (
                TenantWaitEstimate(
                    "t", 2, WaitEstimate(2.5, 0.5), (QueueMark(7, 0), QueueMark(9, 3))
                ),
                TenantWaitEstimate("", 0, None),
            ),
        ),
        LaneStatistics("bulk", 0, 0, 0.0, None),
    ]
    report = lane_report(leadership, figures, max_waiting=9)
    urgent, bulk = report.lanes
    assert (urgent.waiting, urgent.running, urgent.max_waiting) == (2, 1, 9)
    assert urgent.estimated_wait.ToMilliseconds() == 1250
    assert urgent.place_interval.ToMilliseconds() == 500
    named, any_other = urgent.tenants
    assert (named.tenant, named.waiting) == ("t", 2)
    assert named.estimated_wait.ToMilliseconds() == 2500
    assert (list(named.sequences), list(named.ahead)) == ([7, 9], [0, 3])
    assert (any_other.tenant, any_other.HasField("estimated_wait")) == ("", False)
    assert bulk.priority == Priority.PRIORITY_BULK
    assert not bulk.HasField("estimated_wait")
    assert not bulk.HasField("place_interval")


def test_a_new_leader_gets_the_recent_reports_of_workers_and_gateways() -> None:
    report_cache = ReportCache(kept_s=5.0)
    report_cache.add_worker_report(reported("old", 1, received_s=1.0))
    report_cache.add_worker_report(reported("w", 1, received_s=8.0))
    latest = reported("w", 2, received_s=9.0)
    report_cache.add_worker_report(latest)
    gateway = gateway_reported(received_s=9.0)
    report_cache.add_gateway_report(gateway)
    assert report_cache.recent(10.0) == [latest, gateway]


def test_a_short_lane_is_reported_whole_and_a_long_one_by_samples() -> None:
    bench = Bench()
    bench.submit(*(f"r{i}" for i in range(64)))
    marks = marks_of_the_only_tenant(bench)
    assert [(m.sequence, m.ahead) for m in marks] == [(i + 1, i) for i in range(64)]
    bench.submit(*(f"s{i}" for i in range(337)))
    sequences = [mark.sequence for mark in marks_of_the_only_tenant(bench)]
    assert (len(sequences), sequences[0], sequences[-1]) == (64, 1, 401)
    assert {b - a for a, b in pairwise(sequences)} <= {6, 7}


def marks_of_the_only_tenant(bench: Bench) -> Sequence[QueueMark]:
    (_, standard, _) = bench.machine.lanes(now_s=bench.now_s)
    (only, _) = standard.tenants
    assert (only.tenant, only.waiting) == ("default", standard.waiting)
    return only.marks

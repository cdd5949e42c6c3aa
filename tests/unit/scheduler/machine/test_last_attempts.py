"""What counts as a failure of a request, and what becomes of those that fail again and again."""

from __future__ import annotations

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import Dispatch, PublishDeadLetter, SendNotice
from helpers.scheduler_events import EPOCH, Bench, answer, gateway_reported, lost, point


def redispatched(bench: Bench) -> RequestRecord:
    return bench.only(Dispatch).message.requests[0]


def lose_worker(bench: Bench, output: list[int]) -> RequestRecord | None:
    """The worker of request `a` dies when the client has this; what the next one is given."""
    dispatch = bench.only(Dispatch)
    bench.accept()
    where = point("a", dispatch.message.requests[0].attempt, output)
    bench.apply(lost(dispatch.worker_id, where))
    notice = bench.only(SendNotice)
    bench.worker(f"after-{dispatch.worker_id}")
    bench.apply(answer(notice, where))
    return redispatched(bench) if bench.given(Dispatch) else None


def test_a_request_that_makes_progress_outlives_any_number_of_workers() -> None:
    bench = Bench(SchedulerSettings(max_attempts=2))
    bench.worker()
    bench.submit("a")
    for made in range(8, 81, 8):
        record = lose_worker(bench, list(range(made)))
        assert record is not None
        assert record.failures == 1


def test_progress_counts_where_only_the_gateway_knows_of_it() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    record = lose_worker(bench, list(range(8)))
    assert record is not None
    bench.accept()
    bench.apply(gateway_reported(received_s=bench.now_s + 3.1))
    bench.after(3.1)
    notice = bench.only(SendNotice)
    bench.worker("another")
    bench.apply(answer(notice, point("a", record.attempt, list(range(16)))))
    assert redispatched(bench).failures == 1


def test_a_request_that_kills_its_workers_after_a_few_tokens_ends() -> None:
    bench = Bench(SchedulerSettings(max_attempts=3))
    bench.worker()
    bench.submit("a")
    assert lose_worker(bench, [])
    assert lose_worker(bench, [1, 2, 3])
    assert lose_worker(bench, [1, 2, 3, 4, 5, 6, 7]) is None
    assert "failed on 3 attempts" in bench.only(PublishDeadLetter).reason


def all_lost(bench: Bench, worker_id: str) -> list[Dispatch]:
    """The worker dies with all that it was just given; what another, empty one is given then."""
    (dispatch,) = [d for d in bench.given(Dispatch) if d.worker_id == worker_id]
    bench.accept()
    points = [point(r.request_id, r.attempt) for r in dispatch.message.requests]
    bench.worker(worker_id, number=2, draining=True)
    bench.apply(lost(worker_id, *points))
    notice = bench.only(SendNotice)
    bench.worker(f"{worker_id}+", free=8, total=8)
    bench.apply(answer(notice, *points))
    return bench.given(Dispatch)


def ids(dispatches: list[Dispatch]) -> list[str]:
    return [r.request_id for d in dispatches for r in d.message.requests]


def test_a_request_that_kills_its_workers_ends_no_other() -> None:
    bench = Bench(SchedulerSettings(max_attempts=2))
    bench.worker(free=8, total=8)
    bench.submit("culprit", "bystander")
    assert ids(all_lost(bench, "w")) == ["culprit"], "each on its last attempt, so not together"
    all_lost(bench, "w+")
    assert "failed on 2 attempts" in bench.only(PublishDeadLetter).reason
    bystander = bench.machine.find("bystander")
    assert bystander is not None
    assert bystander.is_running


def test_requests_on_their_last_attempt_start_one_after_another_beside_all_others() -> None:
    bench = Bench(SchedulerSettings(max_attempts=2, worker_silence_s=60.0, gateway_silence_s=60.0))
    bench.worker(free=8, total=8)
    bench.submit("a", "b")
    assert ids(all_lost(bench, "w")) == ["a"]
    bench.accept()
    bench.submit("fresh")
    assert ids(bench.given(Dispatch)) == ["fresh"]
    number = bench.only(Dispatch).number
    found = {name: bench.machine.find(name) for name in ("a", "fresh")}
    running = {name: each.record.attempt for name, each in found.items() if each is not None}
    bench.accept()
    assert bench.after(0.6) == [], "the worker has not reported since"
    bench.worker("w+", number=2, free=8, total=8, running=running, counted=(EPOCH, number))
    assert ids(bench.given(Dispatch)) == ["b"]

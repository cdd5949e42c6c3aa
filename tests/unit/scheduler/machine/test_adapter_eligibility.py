"""A request for an adapter goes where an equal one is held, and delays no other meanwhile."""

from __future__ import annotations

from headrace.errors import NoWorker
from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import Dispatch, SendNotice
from helpers.scheduler_events import Bench, answer, lost, point


def given_to(bench: Bench) -> dict[str, str]:
    """Worker by request, of the dispatches just given."""
    return {r.request_id: d.worker_id for d in bench.given(Dispatch) for r in d.message.requests}


def attempt_of(bench: Bench, request_id: str) -> int:
    found = bench.machine.find(request_id)
    assert found is not None
    return found.record.attempt


def test_only_a_worker_that_holds_the_adapter_gets_the_request() -> None:
    bench = Bench()
    bench.worker("plain")
    bench.worker("adapted", adapters=("pirate",))
    bench.submit("a", adapter="pirate")
    assert given_to(bench) == {"a": "adapted"}


def test_a_request_whose_adapter_no_worker_has_waits_and_delays_no_other() -> None:
    bench = Bench()
    bench.submit("a", adapter="pirate")
    bench.submit("b")
    bench.worker("plain", free=8, total=8)
    assert given_to(bench) == {"b": "plain"}
    bench.accept()
    bench.worker("plain", number=2, free=7, total=8, adapters=("pirate",))
    assert given_to(bench) == {"a": "plain"}


def test_a_request_whose_adapter_a_worker_unloaded_goes_to_another() -> None:
    bench = Bench()
    bench.worker("one", adapters=("pirate",))
    bench.submit("a", adapter="pirate")
    bench.refuse(DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_WRONG_MODEL)
    bench.worker("one", number=2)
    assert given_to(bench) == {}
    bench.worker("other", adapters=("pirate",))
    assert given_to(bench) == {"a": "other"}


def test_what_ran_with_an_adapter_goes_on_with_an_equal_one() -> None:
    bench = Bench()
    bench.worker("one", adapters=("pirate",))
    bench.submit("a", adapter="pirate")
    bench.accept()
    where = point("a", attempt_of(bench, "a"), [1, 2])
    bench.worker("plain")
    bench.apply(lost("one", where))
    notice = bench.only(SendNotice)
    bench.worker("one", number=2, leaving=True)
    bench.apply(answer(notice, where))
    assert given_to(bench) == {}
    bench.worker("other", adapters=("pirate", "poet"))
    assert given_to(bench) == {"a": "other"}


def test_patience_that_ends_for_want_of_an_adapter_names_it() -> None:
    bench = Bench()
    bench.worker("plain")
    bench.submit("a", adapter="pirate", queue_deadline_s=102.0)
    bench.after(2.1)
    ((_, error),) = bench.only(SendNotice).ended
    assert isinstance(error, NoWorker)
    assert error.message == "no worker served tiny:pirate within 2.1 s"


def test_one_on_its_last_attempt_that_waits_for_its_adapter_holds_up_no_other_such() -> None:
    bench = Bench(SchedulerSettings(max_attempts=2))
    bench.worker("one", adapters=("pirate",))
    bench.submit("a", adapter="pirate")
    bench.accept()
    bench.submit("b")
    bench.accept()
    points = [point(request_id, attempt_of(bench, request_id)) for request_id in ("a", "b")]
    bench.worker("one", number=2, draining=True)
    bench.apply(lost("one", *points))
    notice = bench.only(SendNotice)
    bench.apply(answer(notice, *points))
    bench.worker("plain")
    assert given_to(bench) == {"b": "plain"}

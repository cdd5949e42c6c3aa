"""The table of transitions: every row happens, and nothing happens that is not in it.

`CountingObserver` compares each move of each test with the table. Here are the histories that no
other test has, and the proof that together they reach every row.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import (
    CancelRequested,
    Dispatch,
    DispatchUnanswered,
    NoticeUnanswered,
    SendNotice,
)
from headrace_scheduler.state.transitions import TRANSITIONS
from helpers.counting_observer import SEEN_TRANSITIONS
from helpers.scheduler_events import (
    EPOCH,
    Bench,
    gateway_reported,
    point,
    reported,
    settled,
    submitted,
    take_over_requested,
)
from helpers.states_page import page

DOCS = Path(__file__).parents[4] / "docs"
SETTINGS = SchedulerSettings(worker_silence_s=600.0, max_attempts=1)
HOLDING = SETTINGS.model_copy(update={"adoption_window_s": 600.0})
NEWER = (EPOCH << 20) + 50
LIVE = ("held", "waiting", "running", "lost", "ending", "orphaned")
SIMULATIONS = ("test_estimates", "test_random_events")


def in_state(state: str, *, attachable: bool = True) -> Bench:
    """Return a bench with the request "r" of gateway "g" in a state."""
    bench = Bench(HOLDING, holding=True) if state == "held" else Bench(SETTINGS)
    if state in ("running", "lost"):
        bench.worker()
    bench.submit("r", attachable=attachable)
    match state:
        case "running":
            bench.accept()
        case "lost":
            bench.apply(DispatchUnanswered("w", bench.only(Dispatch).number))
            bench.worker(number=2, draining=True)
        case "ending":
            bench.apply(CancelRequested("r"))
        case "orphaned":
            bench.apply(gateway_reported(received_s=bench.now_s, leaving=True))
    return bench


def state_of(bench: Bench) -> str:
    found = bench.machine.find("r")
    return "gone" if found is None else type(found.state).__name__.lower()


def leaves(bench: Bench) -> None:
    bench.apply(gateway_reported(received_s=bench.now_s, leaving=True))


def is_disconnected(bench: Bench) -> None:
    notices = bench.given(SendNotice)
    bench.apply(take_over_requested("r", "h", unreachable="g"))
    (notice,) = notices or bench.given(SendNotice)
    bench.apply(NoticeUnanswered(notice, is_disconnected=True))


def falls_silent(bench: Bench) -> None:
    bench.after(SETTINGS.gateway_silence_s + 0.2)


GATEWAY_LOSSES: tuple[Callable[[Bench], None], ...] = (leaves, is_disconnected, falls_silent)


def test_a_request_whose_gateway_is_lost_is_orphaned_or_gone() -> None:
    for lose_gateway in GATEWAY_LOSSES:
        for state in ("held", "waiting", "running", "lost", "ending"):
            for attachable in (True, False):
                bench = in_state(state, attachable=attachable)
                lose_gateway(bench)
                kept = attachable and state != "ending"
                assert state_of(bench) == ("orphaned" if kept else "gone"), (state, lose_gateway)


def test_a_settled_request_is_gone_from_every_state() -> None:
    for state in LIVE:
        bench = in_state(state)
        assert state_of(bench) == state
        bench.apply(settled("r"))
        assert state_of(bench) == "gone"


def test_a_cancelled_request_ends_and_an_orphan_is_gone() -> None:
    for state in LIVE:
        bench = in_state(state)
        bench.apply(CancelRequested("r"))
        assert state_of(bench) == ("gone" if state == "orphaned" else "ending")


def test_a_gateway_that_requests_what_it_holds_has_missed_that_it_goes_on() -> None:
    for state in ("waiting", "running"):
        bench = in_state(state)
        bench.apply(take_over_requested("r", "g"))
        assert state_of(bench) == "lost"


def test_a_lost_request_goes_on_by_its_gateways_point_unless_its_attempts_are_exhausted() -> None:
    for error, state in (("", "waiting"), ("the engine failed", "ending")):
        bench = in_state("lost")
        found = bench.machine.find("r")
        assert found is not None
        stands = point("r", found.record.attempt, [7], error=error)
        bench.apply(take_over_requested("r", "g", stands=stands))
        assert state_of(bench) == state


def test_a_waiting_request_is_adopted_where_a_newer_attempt_of_it_runs() -> None:
    bench = in_state("waiting")
    bench.apply(reported("w", 1, received_s=bench.now_s, running={"r": NEWER}))
    assert state_of(bench) == "running"


def test_every_row_of_the_table_happens_in_the_histories_of_these_tests() -> None:
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        if file.stem in SIMULATIONS:
            continue
        spec = importlib.util.spec_from_file_location(f"histories.{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, history in inspect.getmembers(module, inspect.isfunction):
            is_history = name.startswith("test_") and name not in (
                "test_every_row_of_the_table_happens_in_the_histories_of_these_tests",
            )
            if is_history and not inspect.signature(history).parameters:
                history()
    missing = TRANSITIONS.keys() - SEEN_TRANSITIONS
    assert not missing, f"rows of the table that never happen: {sorted(missing)}"


def test_a_move_that_is_not_in_the_table_fails_the_test_that_makes_it() -> None:
    bench = Bench()
    bench.observer.event = "Settled"
    with pytest.raises(AssertionError, match="not in the table"):
        bench.observer.moved(submitted("r").request, "running", "waiting")


def test_the_page_of_states_is_the_table() -> None:
    assert (DOCS / "architecture_states.md").read_text() == page()

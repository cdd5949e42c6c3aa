"""Which requests leave together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.workers.forming import Batch, LaneView, form_batch
from headrace_scheduler.workers.worker import Worker

NEVER = float("inf")
IDLE = Worker(
    "w", "w", total_slots=8, reported_slots=8, reported_cache_tokens=1000, weights_digest="w1"
)
BUSY = replace(IDLE, running={"another": 1})
SETTINGS = SchedulerSettings(
    max_batch_requests=16, max_batch_prefill_tokens=100, ageing_s=2.0, floor_share=0.25
)


def request(
    name: str,
    *,
    slots: int = 1,
    prefill_tokens: int = 10,
    cache_tokens: int = 20,
    message_bytes: int = 30,
    queued_s: float = 0.0,
) -> Request:
    """Return a waiting request with these figures, whatever its record would give."""
    record = RequestRecord(request_id=name, weights_digest="w1")
    made = Request(record, "standard", 1, "", 0.0, NEVER, NEVER, message_bytes, queued_s)
    made.slots, made.prefill_tokens, made.cache_tokens = slots, prefill_tokens, cache_tokens
    return made


def lanes(*waiting: Sequence[Request]) -> list[LaneView]:
    return [LaneView(lane) for lane in waiting]


def names(batch: Batch) -> str:
    return "".join(r.request_id for r in batch.requests)


def queued(letters: str, **figures: int) -> list[Request]:
    return [request(letter, **figures) for letter in letters]


def test_nothing_waits_and_nothing_leaves() -> None:
    assert names(form_batch(lanes([], []), IDLE, SETTINGS, now_s=0)) == ""


def test_the_most_urgent_lane_goes_first_and_within_it_the_oldest() -> None:
    batch = form_batch(lanes(queued("ab"), queued("cd")), IDLE, SETTINGS, now_s=0)
    assert names(batch) == "abcd"


def test_a_batch_has_no_more_choices_than_the_worker_has_slots() -> None:
    waiting = [request("a", slots=3), request("b", slots=3), request("c", slots=3)]
    assert names(form_batch(lanes(waiting), IDLE, SETTINGS, now_s=0)) == "ab"


def test_nothing_overtakes_a_head_that_needs_more_slots_than_are_free() -> None:
    waiting = [request("a", slots=4), request("b")]
    few = replace(BUSY, reported_slots=3)
    assert names(form_batch(lanes(waiting, queued("c")), few, SETTINGS, now_s=9)) == ""


def test_prefill_of_a_batch_stays_within_its_budget() -> None:
    waiting = queued("abc", prefill_tokens=40)
    assert names(form_batch(lanes(waiting), IDLE, SETTINGS, now_s=0)) == "ab"


def test_a_prompt_beyond_the_budget_leaves_alone() -> None:
    waiting = [request("a", prefill_tokens=101), request("b")]
    assert names(form_batch(lanes(waiting), BUSY, SETTINGS, now_s=0)) == "a"


def test_a_batch_stays_within_the_size_of_a_message() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_bytes": 70})
    assert names(form_batch(lanes(queued("abc")), BUSY, settings, now_s=0)) == "ab"


def test_a_busy_worker_gets_no_more_than_its_cache_has_room_for() -> None:
    waiting = queued("abc", cache_tokens=400)
    assert names(form_batch(lanes(waiting), BUSY, SETTINGS, now_s=0)) == "ab"


def test_a_worker_that_runs_nothing_takes_a_head_whatever_its_cache() -> None:
    waiting = queued("ab", cache_tokens=5000)
    assert names(form_batch(lanes(waiting), BUSY, SETTINGS, now_s=0)) == ""
    assert names(form_batch(lanes(waiting), IDLE, SETTINGS, now_s=0)) == "a"


def test_a_lone_request_leaves_at_once_where_batches_do_not_wait() -> None:
    assert names(form_batch(lanes(queued("a")), IDLE, SETTINGS, now_s=0)) == "a"


def test_a_lone_request_leaves_an_idle_worker_waiting_until_it_has_waited_long_enough() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    assert names(form_batch(lanes(queued("a")), IDLE, settings, now_s=0.019)) == ""
    assert names(form_batch(lanes(queued("a")), IDLE, settings, now_s=0.020)) == "a"


def test_a_batch_leaves_by_the_wait_of_its_oldest_request() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    waiting = lanes([request("a"), request("b", queued_s=0.019)])
    assert names(form_batch(waiting, IDLE, settings, now_s=0.019)) == ""
    assert names(form_batch(waiting, IDLE, settings, now_s=0.020)) == "ab"


def test_a_full_batch_leaves_at_once() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    assert names(form_batch(lanes(queued("abcdefgh")), IDLE, settings, now_s=0)) == "abcdefgh"


def test_a_busy_worker_gets_what_waits() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    assert names(form_batch(lanes(queued("a")), BUSY, settings, now_s=0)) == "a"


def test_priority_is_strict_in_a_burst() -> None:
    batch = form_batch(lanes(queued("abcdefgh"), queued("x")), IDLE, SETTINGS, now_s=1.9)
    assert names(batch) == "abcdefgh"


def test_a_lane_that_was_passed_over_often_goes_first_once_its_head_has_aged() -> None:
    batch = form_batch(lanes(queued("abcdefgh"), queued("xyz")), IDLE, SETTINGS, now_s=2.0)
    assert names(batch) == "abcdxefg"


def test_under_endless_urgent_load_the_lowest_lane_keeps_its_share() -> None:
    credits: tuple[float, ...] = (0.0, 0.0, 0.0)
    served = ""
    for _ in range(100):
        views = [
            LaneView(w, c) for w, c in zip((queued("a"), [], queued("z")), credits, strict=True)
        ]
        batch = form_batch(views, replace(BUSY, reported_slots=1), SETTINGS, now_s=60.0)
        credits = batch.credits
        served += names(batch)
    assert 24 <= served.count("z") <= 25


def test_credit_is_not_hoarded() -> None:
    batch = form_batch(lanes(queued("abcdefgh"), queued("x")), IDLE, SETTINGS, now_s=0.0)
    assert batch.credits == (0.0, 1.0)

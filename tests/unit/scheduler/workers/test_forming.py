"""Which requests leave together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.workers.forming import Batch, LaneView, Room, form_batch


@dataclass(frozen=True)
class Want:
    name: str
    slots: int = 1
    prefill_tokens: int = 10
    cache_tokens: int = 20
    message_bytes: int = 30
    queued_s: float = 0.0
    weights_digest: str = "w1"
    adapter_digest: str = ""


ROOM = Room(slots=8, total_slots=8, cache_tokens=1000, weights_digest="w1", idle=True)
BUSY = ROOM._replace(idle=False)
SETTINGS = SchedulerSettings(
    max_batch_requests=16, max_batch_prefill_tokens=100, ageing_s=2.0, floor_share=0.25
)


def lanes(*waiting: Sequence[Want]) -> list[LaneView[Want]]:
    return [LaneView(list(lane)) for lane in waiting]


def names(batch: Batch[Want]) -> str:
    return "".join(r.name for r in batch.requests)


def wants(letters: str, **fields: object) -> list[Want]:
    return [replace(Want(letter), **fields) for letter in letters]  # type: ignore[arg-type]


def test_nothing_waits_and_nothing_leaves() -> None:
    assert names(form_batch(lanes([], []), ROOM, SETTINGS, now_s=0)) == ""


def test_the_most_urgent_lane_goes_first_and_within_it_the_oldest() -> None:
    batch = form_batch(lanes(wants("ab"), wants("cd")), ROOM, SETTINGS, now_s=0)
    assert names(batch) == "abcd"


def test_a_batch_has_no_more_choices_than_the_worker_has_slots() -> None:
    waiting = [Want("a", slots=3), Want("b", slots=3), Want("c", slots=3)]
    assert names(form_batch(lanes(waiting), ROOM, SETTINGS, now_s=0)) == "ab"


def test_nothing_overtakes_a_head_that_needs_more_slots_than_are_free() -> None:
    waiting = [Want("a", slots=4), Want("b")]
    few = BUSY._replace(slots=3)
    assert names(form_batch(lanes(waiting, wants("c")), few, SETTINGS, now_s=9)) == ""


def test_prefill_of_a_batch_stays_within_its_budget() -> None:
    waiting = wants("abc", prefill_tokens=40)
    assert names(form_batch(lanes(waiting), ROOM, SETTINGS, now_s=0)) == "ab"


def test_a_prompt_beyond_the_budget_leaves_alone() -> None:
    waiting = [Want("a", prefill_tokens=101), Want("b")]
    assert names(form_batch(lanes(waiting), BUSY, SETTINGS, now_s=0)) == "a"


def test_a_batch_stays_within_the_size_of_a_message() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_bytes": 70})
    assert names(form_batch(lanes(wants("abc")), BUSY, settings, now_s=0)) == "ab"


def test_a_busy_worker_gets_no_more_than_its_cache_has_room_for() -> None:
    waiting = wants("abc", cache_tokens=400)
    assert names(form_batch(lanes(waiting), BUSY, SETTINGS, now_s=0)) == "ab"


def test_a_worker_that_runs_nothing_takes_a_head_whatever_its_cache() -> None:
    waiting = wants("ab", cache_tokens=5000)
    assert names(form_batch(lanes(waiting), BUSY, SETTINGS, now_s=0)) == ""
    assert names(form_batch(lanes(waiting), ROOM, SETTINGS, now_s=0)) == "a"


def test_a_lone_request_leaves_at_once_where_batches_do_not_wait() -> None:
    assert names(form_batch(lanes(wants("a")), ROOM, SETTINGS, now_s=0)) == "a"


def test_a_lone_request_leaves_an_idle_worker_waiting_until_it_has_waited_long_enough() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    assert names(form_batch(lanes(wants("a")), ROOM, settings, now_s=0.019)) == ""
    assert names(form_batch(lanes(wants("a")), ROOM, settings, now_s=0.020)) == "a"


def test_a_batch_leaves_by_the_wait_of_its_oldest_request() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    waiting = lanes([Want("a"), Want("b", queued_s=0.019)])
    assert names(form_batch(waiting, ROOM, settings, now_s=0.019)) == ""
    assert names(form_batch(waiting, ROOM, settings, now_s=0.020)) == "ab"


def test_a_full_batch_leaves_at_once() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    assert names(form_batch(lanes(wants("abcdefgh")), ROOM, settings, now_s=0)) == "abcdefgh"


def test_a_busy_worker_gets_what_waits() -> None:
    settings = SETTINGS.model_copy(update={"max_batch_wait_s": 0.02})
    assert names(form_batch(lanes(wants("a")), BUSY, settings, now_s=0)) == "a"


def test_priority_is_strict_in_a_burst() -> None:
    batch = form_batch(lanes(wants("abcdefgh"), wants("x")), ROOM, SETTINGS, now_s=1.9)
    assert names(batch) == "abcdefgh"


def test_a_lane_that_was_passed_over_often_goes_first_once_its_head_has_aged() -> None:
    batch = form_batch(lanes(wants("abcdefgh"), wants("xyz")), ROOM, SETTINGS, now_s=2.0)
    assert names(batch) == "abcdxefg"


def test_under_endless_urgent_load_the_lowest_lane_keeps_its_share() -> None:
    credits: tuple[float, ...] = (0.0, 0.0, 0.0)
    served = ""
    for _ in range(100):
        views = [LaneView(w, c) for w, c in zip((wants("a"), [], wants("z")), credits, strict=True)]
        batch = form_batch(views, BUSY._replace(slots=1), SETTINGS, now_s=60.0)
        credits = batch.credits
        served += names(batch)
    assert 24 <= served.count("z") <= 25


def test_credit_is_not_hoarded() -> None:
    batch = form_batch(lanes(wants("abcdefgh"), wants("x")), ROOM, SETTINGS, now_s=0.0)
    assert batch.credits == (0.0, 1.0)

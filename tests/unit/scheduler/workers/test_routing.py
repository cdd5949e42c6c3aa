"""A conversation goes to the worker that holds its last turn, unless that costs more."""

from __future__ import annotations

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.prefixes import BLOCK_TOKENS
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.prefixes import prefix_block_names
from headrace_scheduler.state.events import Dispatch
from headrace_scheduler.workers.routing import MAX_SKIPPED
from helpers.scheduler_events import EPOCH, Bench, prefixes_reported

PROMPT = list(range(8 * BLOCK_TOKENS))
NAMES = prefix_block_names(RequestRecord(weights_digest="w1", prompt_ids=PROMPT))
SETTINGS = SchedulerSettings(prefix_load_slack=0.25, prefix_wait_s_per_token=0.001)


def two_workers(
    settings: SchedulerSettings = SETTINGS, *, number: int = 1, **fields: object
) -> Bench:
    """`v`, which comes first where nothing else decides, and `w`, which holds four blocks."""
    bench = Bench(settings)
    bench.worker("v")
    bench.worker("w", number, **fields)
    bench.apply(prefixes_reported("w", NAMES[:4], full=True))
    return bench


def dispatched_to(bench: Bench, request_id: str = "a", prompt: list[int] = PROMPT) -> list[str]:
    """Submit a request; return the workers that get it at once: one or none."""
    bench.submit(request_id, prompt=prompt, digest="w1")
    return [dispatch.worker_id for dispatch in bench.given(Dispatch)]


def test_all_full_blocks_but_the_last_token_have_names() -> None:
    assert len(NAMES) == 7
    assert (
        prefix_block_names(RequestRecord(weights_digest="w1", prompt_ids=[*PROMPT, 1]))[:7] == NAMES
    )


def test_other_weights_and_other_adapters_have_other_names() -> None:
    others = (
        RequestRecord(weights_digest="w2", prompt_ids=PROMPT),
        RequestRecord(weights_digest="w1", prompt_ids=PROMPT, adapter_digest="a"),
    )
    assert not any({*prefix_block_names(other)} & {*NAMES} for other in others)
    assert prefix_block_names(RequestRecord(prompt_ids=PROMPT)) == ()


def test_names_of_one_salt_are_no_others() -> None:
    def names(salt: str) -> set[int]:
        record = RequestRecord(weights_digest="w1", prompt_ids=PROMPT, cache_salt=salt)
        return {*prefix_block_names(record)}

    assert names("") == {*NAMES}
    assert names("a") == names("a")
    assert not names("a") & names("b")
    assert not names("a") & names("")


def test_the_worker_with_the_prefix_is_preferred() -> None:
    assert dispatched_to(two_workers()) == ["w"]


def test_a_prompt_without_a_cached_prefix_goes_to_the_least_loaded_worker() -> None:
    assert dispatched_to(two_workers(), prompt=[7, *PROMPT]) == ["v"]


def test_what_is_routed_is_counted_with_its_tokens() -> None:
    bench = two_workers()
    dispatched_to(bench)
    assert bench.observer.counts["prefix held"] == 1
    assert bench.observer.counts["prefix tokens"] == 4 * BLOCK_TOKENS


def test_the_longest_prefix_counts() -> None:
    bench = two_workers()
    bench.apply(prefixes_reported("v", NAMES[:2], full=True))
    assert dispatched_to(bench) == ["w"]


def test_prefix_routing_can_be_turned_off() -> None:
    assert dispatched_to(two_workers(SchedulerSettings(prefix_routing=False))) == ["v"]


def test_a_worker_that_is_loaded_beyond_the_fleet_is_not_waited_for() -> None:
    assert dispatched_to(two_workers(free=2)) == ["w"], "0.5, where the fleet has 0.25"
    assert dispatched_to(two_workers(free=1)) == ["v"], "0.75, where the fleet has 0.375"


def test_a_worker_that_drains_is_not_waited_for() -> None:
    assert dispatched_to(two_workers(draining=True)) == ["v"]


def test_a_worker_that_is_gone_is_forgotten() -> None:
    bench = two_workers()
    bench.worker("w", number=2, leaving=True)
    bench.worker("x")
    assert dispatched_to(bench) == ["v"]


def test_a_prefix_that_was_evicted_counts_no_more() -> None:
    bench = two_workers()
    bench.apply(prefixes_reported("w", [], dropped=NAMES[:4]))
    assert dispatched_to(bench) == ["v"]


def test_a_full_report_replaces_all_earlier_ones() -> None:
    bench = two_workers()
    bench.apply(prefixes_reported("w", [12345], full=True))
    assert dispatched_to(bench) == ["v"]


def busy() -> Bench:
    """`w` has not answered its dispatch, so nothing can go there now."""
    bench = two_workers()
    assert dispatched_to(bench) == ["w"]
    return bench


def test_a_request_waits_for_it_as_long_as_its_prefill_would_take() -> None:
    bench = busy()
    assert dispatched_to(bench, "b") == []
    assert bench.machine.next_due_s() <= bench.now_s + 0.064
    bench.after(0.06)
    assert bench.given(Dispatch) == []
    bench.after(0.005)
    assert bench.only(Dispatch).worker_id == "v", "four blocks of 16 tokens, a millisecond each"


def test_it_goes_there_if_it_has_room_before() -> None:
    bench = busy()
    (first,) = bench.given(Dispatch)
    dispatched_to(bench, "b")
    bench.now_s += 0.03
    attempt = first.message.requests[0].attempt
    bench.worker("w", number=2, running={"a": attempt}, free=3, counted=(EPOCH, first.number))
    assert bench.given(Dispatch) == []
    bench.commands = [first]
    bench.accept()
    assert bench.only(Dispatch).worker_id == "w"


def test_requests_behind_it_do_not_wait() -> None:
    bench = busy()
    dispatched_to(bench, "b")
    assert dispatched_to(bench, "c", prompt=[1, 2, 3]) == ["v"]


def test_no_more_requests_are_skipped_than_may_be_examined() -> None:
    bench = busy()
    ids = [f"b{n}" for n in range(MAX_SKIPPED + 1)]
    bench.submit(*ids, prompt=PROMPT, digest="w1")
    assert [r.request_id for r in bench.only(Dispatch).message.requests] == ids[MAX_SKIPPED:]

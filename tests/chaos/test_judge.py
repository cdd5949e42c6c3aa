"""The judge is fed with broken histories, and catches each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.chaos.history import (
    UNREACHABLE,
    ChoiceFinished,
    ClientClosed,
    DeltaReceived,
    Event,
    EventLog,
    FaultInjected,
    FaultRecovered,
    RequestRejected,
    RequestSent,
    RunEnded,
    StreamBroken,
    StreamFailed,
    StreamFinished,
    StreamResumed,
    StreamStarted,
    UsageReceived,
    read,
)
from headrace.chaos.judge import judge
from headrace.chaos.scorecard import scorecard
from headrace.chaos.traces import Violation
from headrace.clock import SystemClock
from helpers.histories import DISTURBED, good, spoiled, stream

AT_S = 10.15
"""In the middle of the disturbed stream."""


def violations(history: Iterable[Event]) -> set[Violation]:
    return {finding.violation for finding in judge(history).findings}


def ending_with(*events: Event) -> list[Event]:
    """The disturbed stream stops after its first pieces, and then comes this."""

    def spoil(event: Event) -> list[Event]:
        if isinstance(event, StreamFinished):
            return list(events)
        return [event] if event.at_s <= AT_S else []

    return spoiled(spoil)


def answered_with(*events: Event) -> list[Event]:
    """The disturbed request gets this and nothing else."""

    def spoil(event: Event) -> list[Event]:
        return [event, *events] if isinstance(event, RequestSent) else []

    return spoiled(spoil)


def test_a_good_history_passes() -> None:
    assert judge(good()).findings == []
    assert scorecard(judge(good())).passed


def skip_a_token(event: Event) -> list[Event]:
    match event:
        case DeltaReceived(first_index=2, choice=0):
            return [replace(event, token_ids=event.token_ids[1:], first_index=3)]
    return [event]


def leave_out_a_piece(event: Event) -> list[Event]:
    return (
        []
        if isinstance(event, DeltaReceived) and event.choice == event.first_index == 0
        else [event]
    )


def end_too_early(event: Event) -> list[Event]:
    return [] if isinstance(event, DeltaReceived) and event.first_index == 2 else [event]


def forget_the_end_of_a_choice(event: Event) -> list[Event]:
    return [] if isinstance(event, ChoiceFinished) and event.choice == 1 else [event]


def forget_the_usage(event: Event) -> list[Event]:
    return [] if isinstance(event, UsageReceived) else [event]


def forget_the_end(event: Event) -> list[Event]:
    return [] if isinstance(event, StreamFinished) else [event]


def forget_the_beginning(event: Event) -> list[Event]:
    return [] if isinstance(event, StreamStarted) else [event]


def repeat_a_piece(event: Event) -> list[Event]:
    return (
        [event, event] if isinstance(event, DeltaReceived) and event.first_index == 0 else [event]
    )


def repeat_a_token(event: Event) -> list[Event]:
    if isinstance(event, DeltaReceived) and event.first_index == 2:
        return [replace(event, token_ids=[12, *event.token_ids], first_index=1)]
    return [event]


def end_twice(event: Event) -> list[Event]:
    return [event, event] if isinstance(event, StreamFinished) else [event]


def end_well_and_badly(event: Event) -> list[Event]:
    failed = StreamFailed(event.at_s, DISTURBED, "internal", "no")
    return [event, failed] if isinstance(event, StreamFinished) else [event]


def end_a_choice_twice(event: Event) -> list[Event]:
    return [event, event] if isinstance(event, ChoiceFinished) else [event]


def count_twice(event: Event) -> list[Event]:
    return [event, event] if isinstance(event, UsageReceived) else [event]


def accept_twice(event: Event) -> list[Event]:
    return [event, event] if isinstance(event, StreamStarted) else [event]


def go_on_after_the_end(event: Event) -> list[Event]:
    more = DeltaReceived(event.at_s, DISTURBED, 0, "more", [15], 4)
    return [event, more] if isinstance(event, StreamFinished) else [event]


def go_on_after_the_choice_ended(event: Event) -> list[Event]:
    more = DeltaReceived(event.at_s, DISTURBED, 0, "more", [15], 4)
    return [event, more] if isinstance(event, ChoiceFinished) and event.choice == 0 else [event]


def another_token(event: Event) -> list[Event]:
    if isinstance(event, DeltaReceived) and event.first_index == 2:
        return [replace(event, token_ids=[99, event.token_ids[1]])]
    return [event]


def another_text(event: Event) -> list[Event]:
    if isinstance(event, DeltaReceived) and event.first_index == 2:
        return [replace(event, text=event.text.strip())]
    return [event]


def choices_exchanged(event: Event) -> list[Event]:
    if isinstance(event, DeltaReceived | ChoiceFinished):
        return [replace(event, choice=1 - event.choice)]
    return [event]


def another_reason(event: Event) -> list[Event]:
    return [replace(event, reason="stop")] if isinstance(event, ChoiceFinished) else [event]


def another_prompt_count(event: Event) -> list[Event]:
    return [replace(event, prompt_tokens=6)] if isinstance(event, UsageReceived) else [event]


def another_output_count(event: Event) -> list[Event]:
    return [replace(event, output_tokens=9)] if isinstance(event, UsageReceived) else [event]


@pytest.mark.parametrize(
    ("spoil", "violation"),
    [
        (skip_a_token, Violation.LOST),
        (leave_out_a_piece, Violation.LOST),
        (forget_the_end_of_a_choice, Violation.LOST),
        (forget_the_usage, Violation.LOST),
        (forget_the_end, Violation.LOST),
        (forget_the_beginning, Violation.LOST),
        (repeat_a_piece, Violation.REPEATED),
        (repeat_a_token, Violation.REPEATED),
        (end_twice, Violation.REPEATED),
        (end_well_and_badly, Violation.REPEATED),
        (end_a_choice_twice, Violation.REPEATED),
        (count_twice, Violation.REPEATED),
        (accept_twice, Violation.REPEATED),
        (go_on_after_the_end, Violation.REPEATED),
        (go_on_after_the_choice_ended, Violation.REPEATED),
        (end_too_early, Violation.ALTERED),
        (another_token, Violation.ALTERED),
        (another_text, Violation.ALTERED),
        (choices_exchanged, Violation.ALTERED),
        (another_reason, Violation.ALTERED),
        (another_prompt_count, Violation.ALTERED),
        (another_output_count, Violation.ALTERED),
    ],
)
def test_each_violation_is_found(spoil: object, violation: Violation) -> None:
    assert callable(spoil)
    history = spoiled(spoil)
    assert violation in violations(history)
    assert not scorecard(judge(history)).passed


def test_a_stream_without_finish_or_error_is_lost() -> None:
    assert violations(ending_with()) == {Violation.LOST}
    assert violations(ending_with(StreamBroken(AT_S, DISTURBED, "ended"))) == {Violation.LOST}


def test_a_stream_cut_with_its_gateway_is_lost_unless_its_client_got_the_rest() -> None:
    fault = FaultInjected(AT_S - 0.1, 1, "gateway", "gateway-0")
    assert violations([fault, *ending_with(StreamBroken(AT_S, DISTURBED, "reset"))]) == {
        Violation.LOST
    }
    returned = StreamResumed(AT_S, DISTURBED, "reset")
    history = spoiled(lambda event: [returned, event] if _is_late(event) else [event])
    assert violations([fault, *history]) == set()
    assert scorecard(judge([fault, *history])).returned == 1


def _is_late(event: Event) -> bool:
    return isinstance(event, DeltaReceived) and event.stream == DISTURBED and event.first_index == 2


def test_the_output_of_a_broken_stream_is_compared_with_the_undisturbed_run() -> None:
    cut = ending_with(
        DeltaReceived(AT_S, DISTURBED, 0, "zwei", [99], 2), StreamBroken(AT_S, DISTURBED, "reset")
    )
    assert violations(cut) == {Violation.LOST, Violation.ALTERED}


def test_a_client_may_close_after_part_of_an_answer() -> None:
    assert violations(ending_with(ClientClosed(AT_S, DISTURBED))) == set()
    beginning = DeltaReceived(AT_S, DISTURBED, 1, "tr", [23], 2)
    assert violations(ending_with(beginning, ClientClosed(AT_S, DISTURBED))) == set()
    other = replace(beginning, token_ids=[24])
    assert violations(ending_with(other, ClientClosed(AT_S, DISTURBED))) == {Violation.ALTERED}


def test_an_error_where_the_mesh_promised_an_answer_is_a_failure() -> None:
    failed = StreamFailed(AT_S, DISTURBED, "attempts_exhausted", "3 attempts")
    assert violations(ending_with(failed)) == {Violation.FAILED}
    assert violations(answered_with(RequestRejected(AT_S, DISTURBED, "internal", "no"))) == {
        Violation.FAILED
    }


def test_a_mesh_may_reject_for_capacity_but_not_after_the_first_delta() -> None:
    for code in ("lane_full", "broker_unavailable", "no_worker"):
        assert violations(answered_with(RequestRejected(AT_S, DISTURBED, code, "later"))) == set()
    assert violations(ending_with(StreamFailed(AT_S, DISTURBED, "no_worker", "later"))) == {
        Violation.FAILED
    }


def as_batch(history: list[Event]) -> list[Event]:
    return [
        replace(event, api="batch") if isinstance(event, RequestSent) else event
        for event in history
    ]


def test_rows_of_a_batch_wait_for_capacity_and_never_fail_for_want_of_it() -> None:
    assert violations(as_batch(good())) == set()
    full = RequestRejected(AT_S, DISTURBED, "lane_full", "later")
    assert violations(as_batch(answered_with(full))) == {Violation.FAILED}
    failed = StreamFailed(AT_S, DISTURBED, "broker_unavailable", "later")
    assert Violation.FAILED in violations(as_batch(ending_with(failed)))


def test_no_answer_at_all_is_a_failure_unless_a_gateway_was_just_killed() -> None:
    unanswered = answered_with(RequestRejected(AT_S, DISTURBED, UNREACHABLE, "503"))
    assert violations(unanswered) == {Violation.FAILED}
    assert violations([*unanswered, FaultInjected(AT_S - 1, 1, "gateway", "gateway-0")]) == set()


def test_an_answer_without_an_undisturbed_run_fails() -> None:
    history = [*good(), *stream(3, request=7, disturbed=True, at_s=11.0)]
    assert violations(history) == {Violation.FAILED}


def test_a_model_that_does_not_promise_equal_output_is_judged_by_its_indices_alone() -> None:
    assert violations(spoiled(another_token, exact=False)) == set()
    assert Violation.LOST in violations(spoiled(skip_a_token, exact=False))
    assert Violation.REPEATED in violations(spoiled(repeat_a_token, exact=False))


def test_apis_without_token_ids_are_judged_by_their_text() -> None:
    def untold(event: Event) -> Event:
        if isinstance(event, DeltaReceived):
            return replace(event, token_ids=[], first_index=None)
        return event

    assert violations(map(untold, good())) == set()
    assert violations(map(untold, spoiled(leave_out_a_piece))) == {Violation.ALTERED}
    assert violations(map(untold, spoiled(repeat_a_piece))) == {Violation.ALTERED}


def test_held_requests_and_missing_recoveries_do_not_pass() -> None:
    held = [replace(e, held=1) if isinstance(e, RunEnded) else e for e in good()]
    assert not scorecard(judge(held)).passed
    unknown = [e for e in good() if not isinstance(e, RunEnded)]
    assert not scorecard(judge(unknown)).passed
    fault = FaultInjected(10.0, 1, "worker", "worker-0")
    assert not scorecard(judge([*good(), fault])).passed
    assert scorecard(judge([*good(), fault, FaultRecovered(12.0, 1)])).passed


def test_a_stall_is_the_longest_gap_beyond_the_usual_one() -> None:
    def pause(event: Event) -> list[Event]:
        return [replace(event, at_s=event.at_s + 2) if event.at_s > AT_S else event]

    fault, recovered = FaultInjected(AT_S, 1, "worker", "worker-0"), FaultRecovered(AT_S + 3, 1)
    card = scorecard(judge([*spoiled(pause), fault, recovered]))
    assert card.passed
    assert card.longest_stall_ms == pytest.approx(2100)
    (figures,) = card.faults
    assert figures.streams_open == 1
    assert figures.longest_resumed_ms == pytest.approx(2050)
    assert figures.mended.p50_ms == pytest.approx(3000)


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    written = [
        *good(),
        FaultInjected(1.0, 1, "nats", "nats"),
        StreamBroken(2.0, DISTURBED, "é\u2028"),
    ]
    with path.open("w", encoding="utf-8") as file:
        log = EventLog(file, SystemClock())
        for event in written:
            log.append(event)
    assert list(read(path)) == written

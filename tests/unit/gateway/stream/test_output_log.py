"""Exactly-once: whatever senders send, a reader gets 0, 1, 2 ... and one end."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DeadlineExceeded, RequestCancelled
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Tokens
from headrace_gateway.stream.output_log import SenderFault, Verdict
from helpers.read_output import ReadOutputLog

LENGTH = FinishReason.FINISH_REASON_LENGTH
STOP = FinishReason.FINISH_REASON_STOP


def output(*, choices: int = 1, max_tokens: int = 100) -> ReadOutputLog:
    return ReadOutputLog(choices=choices, max_tokens=max_tokens)


def opened(*, choices: int = 1, max_tokens: int = 100) -> ReadOutputLog:
    """A log that has opened attempt 1 for every choice."""
    made = output(choices=choices, max_tokens=max_tokens)
    for choice in range(choices):
        assert made.open(choice, 1)
    return made


def say(
    to: ReadOutputLog, attempt: int, first: int, ids: list[int], choice: int = 0
) -> list[Verdict]:
    return [to.take(choice, attempt, first + i, token) for i, token in enumerate(ids)]


def test_tokens_come_out_as_they_went_in_and_once() -> None:
    made = opened()
    say(made, 1, 0, [7, 8])
    assert made.drain() == [Tokens(0, 0, [7, 8])]
    say(made, 1, 2, [9])
    assert made.drain() == [Tokens(0, 2, [9])]
    assert made.drain() == []


def test_a_vector_is_read_once_however_often_it_is_sent() -> None:
    made = opened(choices=2, max_tokens=0)
    assert made.end(1, 1, STOP, 0, b"one") is Verdict.TAKEN
    assert made.drain() == [ChoiceEnded(1, STOP, b"one")]
    assert made.end(1, 1, STOP, 0, b"one") is Verdict.STALE
    made.fence(1)
    assert [(p.choice, p.finish_reason) for p in made.progress()] == [(1, STOP)]
    assert made.open(0, 2)
    assert not made.open(1, 2), "it has come, and is not computed again"
    assert made.end(0, 2, STOP, 0, b"nought") is Verdict.TAKEN
    assert made.drain() == [ChoiceEnded(0, STOP, b"nought")]
    assert made.over


def test_tokens_of_an_attempt_that_was_never_opened_are_stale() -> None:
    assert output().take(0, 1, 0, 7) is Verdict.STALE


def test_a_newer_attempt_fences_the_older() -> None:
    made = opened()
    say(made, 1, 0, [7])
    assert made.open(0, 2)
    assert made.take(0, 1, 1, 8) is Verdict.STALE
    assert made.take(0, 2, 1, 8) is Verdict.TAKEN


def test_an_older_attempt_that_opens_late_must_stop() -> None:
    made = output()
    made.open(0, 5)
    assert not made.open(0, 4)
    assert made.take(0, 5, 0, 1) is Verdict.TAKEN


def test_a_fence_stops_the_attempts_up_to_it_and_no_newer() -> None:
    made = opened()
    say(made, 1, 0, [7])
    made.fence(1)
    assert made.take(0, 1, 1, 8) is Verdict.STALE
    assert not made.open(0, 1)
    assert made.open(0, 2)
    assert made.take(0, 2, 1, 8) is Verdict.TAKEN


def test_a_fence_of_the_past_changes_nothing() -> None:
    made = opened()
    made.open(0, 3)
    made.fence(2)
    assert made.take(0, 3, 0, 7) is Verdict.TAKEN


def test_repeats_are_compared_with_the_log() -> None:
    made = opened()
    say(made, 1, 0, [7, 8])
    assert say(made, 1, 0, [7, 9]) == [Verdict.REPEATED, Verdict.MISMATCHED]
    assert made.drain() == [Tokens(0, 0, [7, 8])]


def test_a_skipped_index_is_a_fault_and_is_not_relayed() -> None:
    made = opened()
    say(made, 1, 0, [7])
    with pytest.raises(SenderFault, match="output index 2 where 1 was next"):
        made.take(0, 1, 2, 9)
    assert made.drain() == [Tokens(0, 0, [7])]


def test_more_tokens_than_were_requested_are_a_fault() -> None:
    made = opened(max_tokens=2)
    say(made, 1, 0, [7, 8])
    with pytest.raises(SenderFault, match="of at most 2 tokens"):
        made.take(0, 1, 2, 9)


def test_an_end_before_its_last_token_is_a_fault() -> None:
    made = opened()
    say(made, 1, 0, [7])
    with pytest.raises(SenderFault, match="the end of 2 tokens after 1"):
        made.end(0, 1, LENGTH, 2)
    assert not made.ended


def test_an_end_comes_after_its_tokens_and_nothing_after_it() -> None:
    made = opened()
    say(made, 1, 0, [7])
    assert made.end(0, 1, LENGTH, 1) is Verdict.TAKEN
    assert made.take(0, 1, 1, 8) is Verdict.STALE
    assert made.drain() == [Tokens(0, 0, [7]), ChoiceEnded(0, LENGTH)]
    assert made.over
    assert not made.fail(DeadlineExceeded("late"))
    assert made.drain() == []


def test_an_end_that_is_sent_again_is_stale() -> None:
    made = opened()
    made.end(0, 1, LENGTH, 0)
    assert made.end(0, 1, LENGTH, 0) is Verdict.STALE


def test_an_end_short_of_what_was_relayed_is_taken_as_a_mismatch() -> None:
    made = opened()
    say(made, 1, 0, [7, 8])
    made.open(0, 2)
    assert made.end(0, 2, STOP, 1) is Verdict.MISMATCHED
    assert made.drain() == [Tokens(0, 0, [7, 8]), ChoiceEnded(0, STOP)]


def test_a_request_ends_when_its_last_choice_does() -> None:
    made = opened(choices=2)
    made.end(0, 1, LENGTH, 0)
    assert made.drain() == [ChoiceEnded(0, LENGTH)]
    assert not made.over
    made.end(1, 1, LENGTH, 0)
    assert made.drain() == [ChoiceEnded(1, LENGTH)]
    assert made.over


def test_a_choice_stopped_by_its_reader_gets_nothing_more() -> None:
    made = opened(choices=2)
    say(made, 1, 0, [7, 8])
    made.stop_reading(0, 1)
    assert made.take(0, 1, 2, 9) is Verdict.STALE
    # What came behind the stop string is no output.
    assert (made.output_tokens, list(made.progress()[0].output_ids)) == (1, [7])
    say(made, 1, 0, [5], choice=1)
    assert made.drain() == [Tokens(1, 0, [5])]
    made.stop_reading(1, 1)
    assert made.over


def test_a_failure_follows_the_tokens_before_it_and_ends_all_choices() -> None:
    made = opened(choices=2)
    say(made, 1, 0, [7])
    error = RequestCancelled("gone")
    assert made.fail(error)
    assert made.take(0, 1, 1, 8) is Verdict.STALE
    assert not made.open(0, 2)
    assert made.drain() == [Tokens(0, 0, [7]), Failed(error)]
    assert made.over
    assert made.drain() == []


def test_a_choice_that_does_not_exist_is_a_fault_of_the_newest_attempt() -> None:
    made = opened(choices=2)
    with pytest.raises(SenderFault, match="choice 2 of a request with 2"):
        made.open(2, 3)
    assert made.accepts(3)


def test_progress_has_ids_and_ends_of_the_choices_that_have_any() -> None:
    made = opened(choices=3)
    say(made, 1, 0, [7, 8])
    say(made, 1, 0, [5], choice=2)
    made.end(2, 1, STOP, 1)
    first, second = made.progress()
    assert (first.choice, list(first.output_ids), first.finish_reason) == (0, [7, 8], 0)
    assert (second.choice, list(second.output_ids), second.finish_reason) == (2, [5], STOP)


@dataclass
class Sender:
    """A worker's attempt: it says `true_token(choice, index)` from where it resumed."""

    attempt: int
    cursors: dict[int, int]


@dataclass
class Reader:
    """Keeps what was drained, and asserts on the way that it is in order."""

    ids: dict[int, list[int]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    failures: int = 0

    def read(self, events: list[Event]) -> None:
        assert not (events and self.failures), "something followed the failure"
        for event in events:
            match event:
                case Tokens(choice, first, ids):
                    assert choice not in self.ended
                    assert first == len(self.ids.setdefault(choice, []))
                    self.ids[choice] += ids
                case ChoiceEnded(choice, _):
                    assert choice not in self.ended
                    self.ended.add(choice)
                case Failed():
                    self.failures += 1


CHOICES, ATTEMPTS, FULL = 2, 5, 6


def true_token(choice: int, index: int) -> int:
    return 1000 * choice + index


def hear(made: ReadOutputLog, choice: int, attempt: int, index: int) -> Verdict:
    """One token, as the delivery takes it: a sender that skips is fenced."""
    try:
        return made.take(choice, attempt, index, true_token(choice, index))
    except SenderFault:
        made.fence(attempt)
        return Verdict.STALE


ACTIONS = st.tuples(
    st.sampled_from(["open", "token", "token", "token", "again", "end", "fence", "drain", "fail"]),
    st.integers(1, ATTEMPTS),
    st.integers(0, CHOICES - 1),
    st.integers(0, FULL),
)


@given(st.lists(ACTIONS, max_size=120), st.integers(0, 3))
def test_any_interleaving_of_attempts_repeats_and_zombies_reads_as_one_output(
    actions: list[tuple[str, int, int, int]], failing_every: int
) -> None:
    made = output(choices=CHOICES, max_tokens=FULL)
    senders: dict[int, Sender] = {}
    reader = Reader()
    for number, (action, attempt, choice, back) in enumerate(actions):
        kept = {c.choice: len(c.output_ids) for c in made.progress()}
        sender = senders.setdefault(
            attempt, Sender(attempt, {c: max(0, kept.get(c, 0) - back) for c in range(CHOICES)})
        )
        cursor = sender.cursors[choice]
        match action:
            case "open":
                made.open(choice, attempt)
            case "token" if cursor < FULL:
                sender.cursors[choice] += 1
                assert hear(made, choice, attempt, cursor) is not Verdict.MISMATCHED
            case "again":
                sender.cursors[choice] = max(0, cursor - back)
            case "end" if cursor == FULL and kept.get(choice) == FULL:
                made.end(choice, attempt, LENGTH, FULL)
            case "fence":
                made.fence(attempt)
            case "drain":
                reader.read(made.drain())
            case "fail" if failing_every and number % failing_every == 0:
                made.fail(RequestCancelled("by chance"))
    reader.read(made.drain())
    for choice, ids in reader.ids.items():
        assert ids == [true_token(choice, i) for i in range(len(ids))]
    assert made.over == made.ended == (reader.failures == 1 or len(reader.ended) == CHOICES)


@given(st.data())
def test_a_log_that_loses_its_sender_again_and_again_still_gets_all_output(
    data: st.DataObject,
) -> None:
    made, reader, attempt = output(max_tokens=FULL), Reader(), 0
    while not made.over:
        attempt += 1
        assert made.open(0, attempt)
        start = data.draw(st.integers(0, len(reader.ids.get(0, []))))
        stop = FULL if attempt > 8 else data.draw(st.integers(start, FULL))
        for index in range(start, stop):
            made.take(0, attempt, index, true_token(0, index))
        if stop == FULL:
            made.end(0, attempt, LENGTH, FULL)
        reader.read(made.drain())
        made.fence(attempt)
    assert reader.ids[0] == [true_token(0, i) for i in range(FULL)]
    assert reader.ended == {0}


def test_the_cached_prompt_tokens_are_those_of_the_first_attempt_with_output() -> None:
    made = opened(choices=2)
    made.take_cached(0, 1, 32)
    say(made, 1, 0, [7])
    assert made.drain() == [Tokens(0, 0, [7], cached_prompt=32)]
    made.fence(1)
    made.take_cached(1, 1, 9)
    assert made.open(0, 2)
    made.take_cached(0, 2, 48)
    say(made, 2, 1, [8])
    assert made.drain() == [Tokens(0, 1, [8])]
    other = output(choices=2)
    other.resume(2, made.progress())
    assert made.progress()[0].cached_prompt_tokens == 32
    assert other.drain() == [Tokens(0, 0, [7, 8], cached_prompt=32)]
    assert other.open(1, 3)
    other.take_cached(1, 3, 0)
    say(other, 3, 0, [9], choice=1)
    assert other.drain() == [Tokens(1, 0, [9], cached_prompt=0)]

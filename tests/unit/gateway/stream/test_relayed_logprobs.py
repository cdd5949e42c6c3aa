"""Log probabilities follow their tokens: none is missing, and none comes twice, across any cut."""

from __future__ import annotations

import pytest

from headrace.logprobs import Logprobs
from headrace_gateway.request.generation import Tokens
from headrace_gateway.stream.output_log import SenderFault, Verdict
from helpers.read_output import ReadOutputLog


def told(*own: float) -> Logprobs:
    """With the likeliest beside each."""
    return Logprobs.of(own, [7] * len(own), [-0.5] * len(own))


def telling(prompt_logprobs: int | None = None) -> ReadOutputLog:
    """A log with logprobs that has opened attempt 1."""
    made = ReadOutputLog(choices=1, max_tokens=9, logprobs=True, prompt_logprobs=prompt_logprobs)
    made.open(0, 1)
    return made


def test_logprobs_continue_where_they_were_cut() -> None:
    made = telling()
    for index in range(3):
        made.take(0, 1, index, 7 + index, told(-index))
    assert made.drain() == [Tokens(0, 0, [7, 8, 9], told(0, -1, -2))]
    made.open(0, 2)
    assert made.take(0, 2, 1, 8, told(-1)) is Verdict.REPEATED
    made.take(0, 2, 2, 9, told(-2))
    made.take(0, 2, 3, 5, told(-3))
    assert made.drain() == [Tokens(0, 3, [5], told(-3))]


def test_a_token_without_requested_logprobs_is_a_fault_and_is_not_relayed() -> None:
    made = telling()
    with pytest.raises(SenderFault, match="index 0 without logprobs"):
        made.take(0, 1, 0, 7)
    assert made.drain() == []
    assert made.progress() == []


def test_logprobs_of_the_prompt_are_read_once_with_the_first_output() -> None:
    made = telling(prompt_logprobs=3)
    made.take_prompt(0, 1, 0, told(-1, -2))
    assert made.drain() == []
    made.open(0, 2)
    made.take_prompt(0, 1, 2, told(-9))  # late, of the attempt before
    made.take_prompt(0, 2, 0, told(-1))
    made.take_prompt(0, 2, 1, told(-2, -3))
    made.take(0, 2, 0, 7, told(0))
    made.take(0, 2, 1, 8, told(0))
    assert made.drain() == [Tokens(0, 0, [7, 8], told(0, 0), told(-1, -2, -3))]
    made.take(0, 2, 2, 9, told(0))
    assert made.drain() == [Tokens(0, 2, [9], told(0))]


def test_output_before_all_of_the_prompt_and_parts_out_of_order_are_faults() -> None:
    made = telling(prompt_logprobs=3)
    with pytest.raises(SenderFault, match="from 1 on, where 0 of 3"):
        made.take_prompt(0, 1, 1, told(-1))
    with pytest.raises(SenderFault, match="4 logprobs of the prompt"):
        made.take_prompt(0, 1, 0, told(-1, -2, -3, -4))
    made.take_prompt(0, 1, 0, told(-1))
    with pytest.raises(SenderFault, match="output after 1 of 3"):
        made.take(0, 1, 0, 7, told(0))
    assert made.progress() == []

"""A grammar begins where the reasoning ends, and a budget ends the reasoning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from headrace_worker.engine.base.interface import ReasoningRule
from headrace_worker.engine.grammar.reasoning_matcher import ReasoningMatcher

VOCABULARY = 70
END, BEGIN, CLOSE = 0, (9, 31), (33, 63)
"""The end of an output, and the marks around reasoning, each of two tokens."""


class Only:
    """A grammar of one output, and its end."""

    def __init__(self, *token_ids: int) -> None:
        self._left = [*token_ids, END]

    def fill_bitmask(self, bits: Tensor, row: int) -> None:
        bits[row] = 0
        bits[row, self._left[0] // 32] = 1 << self._left[0] % 32

    def accept(self, token_id: int) -> bool:
        if not self._left or token_id != self._left[0]:
            return False
        del self._left[0]
        return True

    @property
    def is_terminated(self) -> bool:
        return not self._left


def allowed(matcher: ReasoningMatcher) -> set[int]:
    bits = torch.zeros(2, 3, dtype=torch.int32)
    matcher.fill_bitmask(bits, 1)
    assert not bits[0].any()
    return {i for i in range(VOCABULARY) if int(bits[1, i // 32]) >> i % 32 & 1}


def led(matcher: ReasoningMatcher, token_ids: Sequence[int]) -> list[bool]:
    return [matcher.accept(token_id) for token_id in token_ids]


def rule(begin: tuple[int, ...] = (), budget: int | None = None) -> ReasoningRule:
    barred = frozenset({END})
    return ReasoningRule(CLOSE, begin, budget, CLOSE if budget is not None else (), barred)


EVERYTHING = set(range(VOCABULARY))


def test_the_grammar_begins_behind_the_reasoning() -> None:
    matcher = ReasoningMatcher(rule(), lambda: Only(3))
    assert allowed(matcher) == EVERYTHING - {END}
    assert all(led(matcher, [5, 33, 6, 33]))
    assert allowed(matcher) == EVERYTHING - {END}
    assert matcher.accept(63)
    assert allowed(matcher) == {3}
    assert not matcher.accept(4)
    assert led(matcher, [3, END]) == [True, True]
    assert matcher.is_terminated


def test_a_model_may_reason_or_answer_at_once() -> None:
    matcher = ReasoningMatcher(rule(BEGIN), lambda: Only(3))
    assert allowed(matcher) == {3, 9}
    assert all(led(matcher, [3, END]))
    matcher = ReasoningMatcher(rule(BEGIN), lambda: Only(3))
    assert matcher.accept(9)
    assert allowed(matcher) == {31}
    assert all(led(matcher, [31, 44, *CLOSE, 3, END]))
    assert matcher.is_terminated


def test_an_answer_that_begins_as_the_mark_does_is_either() -> None:
    for rest in ([31, 5, *CLOSE, 9, 8, END], [8, END]):
        matcher = ReasoningMatcher(rule(BEGIN), lambda: Only(9, 8))
        assert matcher.accept(9)
        assert allowed(matcher) == {31, 8}
        assert all(led(matcher, rest))
        assert matcher.is_terminated


def test_a_budget_forces_the_end() -> None:
    matcher = ReasoningMatcher(rule(budget=2), lambda: Only(3))
    assert all(led(matcher, [5, 33]))
    assert allowed(matcher) == {33}
    assert not matcher.accept(63)
    assert matcher.accept(33)
    assert allowed(matcher) == {63}
    assert matcher.accept(63)
    assert allowed(matcher) == {3}


def test_a_budget_of_nothing_and_a_free_answer() -> None:
    matcher = ReasoningMatcher(rule(budget=0), None)
    assert allowed(matcher) == {33}
    assert all(led(matcher, [*CLOSE, 5, END]))
    assert allowed(matcher) == EVERYTHING | {END}
    assert not matcher.is_terminated


@given(st.lists(st.sampled_from([9, 31, 33, 63, 5, 3, END]), max_size=12), st.booleans())
def test_what_is_allowed_is_what_is_accepted_after_any_output(ids: list[int], opens: bool) -> None:
    made = rule(BEGIN if opens else (), 4)
    matcher = ReasoningMatcher(made, lambda: Only(3))
    for place, token_id in enumerate(ids):
        if matcher.is_terminated:
            return
        again = ReasoningMatcher(made, lambda: Only(3))
        assert all(led(again, ids[:place]))
        assert allowed(again) == allowed(matcher)
        is_allowed = token_id in allowed(matcher)
        assert matcher.accept(token_id) is is_allowed
        if not is_allowed:
            return

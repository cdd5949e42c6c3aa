"""A grammar that begins where the reasoning ends; and an end to reasoning that is too long.

rule: begins with [9], ends with [7], at most 2 tokens; grammar: token 3, then the end
BEFORE   allowed 3 and 9; 9 opens the reasoning (3 would have been the grammar's)
WITHIN   all but `barred_ids`; after two tokens only 7, which is forced
AFTER    what the grammar allows: 3
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from torch import Tensor

from headrace_worker.engine.base.interface import ReasoningRule
from headrace_worker.engine.grammar.compiler import Matcher


class _State(Enum):
    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


class ReasoningMatcher:
    """One sequence's state: a function of the rule, the grammar and the output so far."""

    def __init__(self, rule: ReasoningRule, make: Callable[[], Matcher] | None) -> None:
        """`make` returns a matcher at the grammar's start; unset: the answer is free."""
        self._rule, self._make = rule, make
        self._state = _State.BEFORE if rule.begin_ids else _State.WITHIN
        self._answer = make() if make is not None else None
        self._answers = True
        """The output so far may be the answer, without reasoning before it."""
        self._begun = 0
        """How much of `begin_ids` there is."""
        self._count = 0
        self._forced: int | None = None
        """How many of `forced_ids` there are; unset: none is forced yet."""
        self._tail: list[int] = []

    def fill_bitmask(self, bits: Tensor, row: int) -> None:
        if self._state is _State.AFTER:
            self._fill_answer(bits, row)
        elif self._state is _State.BEFORE:
            if self._answers:
                self._fill_answer(bits, row)
            else:
                bits[row] = 0
            _allow(bits, row, self._rule.begin_ids[self._begun])
        elif (forced := self._next_forced()) is not None:
            bits[row] = 0
            _allow(bits, row, forced)
        else:
            bits[row] = -1
            for token_id in self._rule.barred_ids:
                bits[row, token_id // 32] &= ~_bit(token_id)

    def accept(self, token_id: int) -> bool:
        if self._state is _State.AFTER:
            return self._answer is None or self._answer.accept(token_id)
        if self._state is _State.BEFORE:
            return self._accept_first(token_id)
        return self._accept_thought(token_id)

    @property
    def is_terminated(self) -> bool:
        is_answer = self._state is _State.AFTER
        return is_answer and self._answer is not None and self._answer.is_terminated

    def _fill_answer(self, bits: Tensor, row: int) -> None:
        if self._answer is None:
            bits[row] = -1
        else:
            self._answer.fill_bitmask(bits, row)

    def _accept_first(self, token_id: int) -> bool:
        opens = token_id == self._rule.begin_ids[self._begun]
        answer = self._answer
        answers = self._answers and (answer is None or answer.accept(token_id))
        if not opens and not answers:
            return False
        if not opens:
            self._state = _State.AFTER
            return True
        self._answers, self._begun = answers, self._begun + 1
        if self._begun == len(self._rule.begin_ids):
            self._state = _State.WITHIN
            self._answer = self._make() if self._make is not None else None
        return True

    def _next_forced(self) -> int | None:
        rule = self._rule
        if self._forced is None and (rule.budget is None or self._count < rule.budget):
            return None
        return rule.forced_ids[self._forced or 0]

    def _accept_thought(self, token_id: int) -> bool:
        rule, forced = self._rule, self._next_forced()
        if forced is not None:
            if token_id != forced:
                return False
            self._forced = (self._forced or 0) + 1
            if self._forced == len(rule.forced_ids):
                self._state = _State.AFTER
            return True
        if token_id in rule.barred_ids:
            return False
        self._count += 1
        self._tail = [*self._tail, token_id][-len(rule.end_ids) :]
        if tuple(self._tail) == rule.end_ids:
            self._state = _State.AFTER
        return True


def _bit(token_id: int) -> int:
    """Return the bit of a token in its word, as an int32."""
    bit = 1 << token_id % 32
    return bit - (1 << 32) if bit == 1 << 31 else bit


def _allow(bits: Tensor, row: int, token_id: int) -> None:
    bits[row, token_id // 32] |= _bit(token_id)

"""Mask the logits of sequences that follow a grammar, so that only allowed tokens can be sampled.

A matcher is a function of the grammar and the output so far. After a restart, a new matcher that
accepts the output so far stands where the lost one stood.

    grammar {"type": "boolean"}; vocabulary 0 "<end>", 1 "tr", 2 "true", 3 "ue", 4 "f"; 5 tokens
    admit(slot 2, sequence)    the compiler starts; is_ready(2) is false: no step has the slot
    poll()                     (2, None): compiled; output [1] of an earlier attempt is accepted
    fill_bitmask(bits, 2)      word 0 of row 2 is 0b01000: only token 3 may follow "tr"
    apply_bitmask(logits, [2]) [0.3, 0.9, 0.1, -2.0, 0.5] -> [-inf, -inf, -inf, -2.0, -inf]
    accept(2, 3)               the output is "true"; next the bitmask is 0b00001: only <end>
    accept(2, 0)               is_terminated(2): the engine finishes the sequence with STOP
    a bitmask of zeros         is_dead_end(2): the engine refuses the sequence
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace_worker.engine.base.interface import Sequence, SequenceRefused
from headrace_worker.engine.grammar.compiler import Compilation, CompileFunction, Compiler, Matcher
from headrace_worker.engine.grammar.reasoning_matcher import ReasoningMatcher

Ints = NDArray[np.int64]

NOTHING_TO_STEP_S = 0.02
"""How long to wait for a grammar if nothing else can run; a command waits no longer than this."""


class SlotGrammars:
    """Matchers by slot. A slot whose grammar is still being compiled is not ready for a step."""

    def __init__(
        self, compile_one: CompileFunction | None, slots: int, vocabulary_size: int
    ) -> None:
        """Without `compile_one`, sequences that have a grammar are refused."""
        self._compiler = None if compile_one is None else Compiler(compile_one)
        self._vocabulary_size = vocabulary_size
        self._waiting: dict[int, tuple[Compilation, Sequence]] = {}
        self._matchers: dict[int, Matcher] = {}
        self._bits = torch.zeros(slots, -(-vocabulary_size // 32), dtype=torch.int32)
        self._dead_ends: set[int] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no slot's next token is bound by a grammar."""
        return not self._matchers

    def require(self, sequence: Sequence) -> None:
        """Raise SequenceRefused if the sequence has a grammar and this engine takes none."""
        if sequence.grammar is not None and self._compiler is None:
            raise SequenceRefused("this engine takes no grammars")

    def admit(self, slot: int, sequence: Sequence) -> None:
        """Start to compile the sequence's grammar, if it has one; `require` has passed."""
        if sequence.grammar is not None:
            assert self._compiler is not None
            self._waiting[slot] = self._compiler.request(sequence.grammar), sequence
        elif sequence.reasoning is not None:
            self._begin(slot, ReasoningMatcher(sequence.reasoning, None), sequence)

    def release(self, slot: int) -> None:
        self._waiting.pop(slot, None)
        self._matchers.pop(slot, None)
        self._dead_ends.discard(slot)

    def is_ready(self, slot: int) -> bool:
        return slot not in self._waiting

    def poll(self, *, wait: bool = False) -> Iterator[tuple[int, str | None]]:
        """Return slots that have become ready (None), and those whose grammar is refused, with the
        reason."""
        if not self._waiting:
            return
        assert self._compiler is not None
        wait = wait and not any(entry[0].is_done for entry in self._waiting.values())
        self._compiler.poll(NOTHING_TO_STEP_S if wait else 0.0)
        settled = [(slot, *entry) for slot, entry in self._waiting.items() if entry[0].is_done]
        for slot, compilation, sequence in settled:
            if compilation.compiled is None:
                yield slot, compilation.refusal
                continue
            matcher, rule = compilation.compiled, sequence.reasoning
            made = matcher() if rule is None else ReasoningMatcher(rule, matcher)
            del self._waiting[slot]
            led = self._begin(slot, made, sequence)
            yield slot, None if led else "the output so far does not follow it"

    def _begin(self, slot: int, matcher: Matcher, sequence: Sequence) -> bool:
        """Lead a matcher through the output so far; return whether it has accepted all of it."""
        self._matchers[slot] = matcher
        return all(matcher.accept(token_id) for token_id in sequence.output_ids)

    def is_terminated(self, slot: int) -> bool:
        """Return whether nothing may follow the slot's output."""
        matcher = self._matchers.get(slot)
        return matcher is not None and matcher.is_terminated

    def is_dead_end(self, slot: int) -> bool:
        """Return whether the last bitmask left the slot no token."""
        return slot in self._dead_ends

    def apply_bitmask(self, logits: Tensor, slots: Ints) -> None:
        """Set forbidden tokens to minus infinity, in place, in the rows of slots with a grammar."""
        rows = [row for row, slot in enumerate(slots.tolist()) if slot in self._matchers]
        if not rows:
            return
        bound = slots[rows]
        for slot in bound.tolist():
            self._matchers[slot].fill_bitmask(self._bits, slot)
        words = self._bits.numpy()[bound]
        self._dead_ends.update(bound[~words.any(axis=1)].tolist())
        allowed = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
        forbidden = torch.from_numpy(allowed[:, : self._vocabulary_size] == 0)
        at = torch.tensor(rows, device=logits.device)
        logits[at] = logits[at].masked_fill(forbidden.to(logits.device), float("-inf"))

    def accept(self, slot: int, token_id: int) -> bool:
        """Advance by a token; return False if the slot's grammar forbids it."""
        return slot not in self._matchers or self._matchers[slot].accept(token_id)

    def check_integrity(self, free: list[int]) -> None:
        """Raise AssertionError if a free slot has a grammar."""
        held = self._waiting.keys() | self._matchers.keys() | self._dead_ends
        assert held.isdisjoint(free), "a grammar that no sequence has"

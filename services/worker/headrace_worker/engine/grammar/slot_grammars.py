"""What grammars allow the sequences that have one: masks over the logits of their rows.

A matcher is a function of the grammar and the output so far: one that is made
anew and led through the output stands where the lost one stood.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace_worker.engine.base.interface import Sequence, SequenceRefused
from headrace_worker.engine.grammar.compiler import Compilation, CompileFunction, Compiler, Matcher

Ints = NDArray[np.int64]

NOTHING_TO_STEP_S = 0.02
"""Wait for a grammar where nothing else is to be done; a command waits no longer than this."""


class SlotGrammars:
    """Matchers by slot. A slot whose grammar is being compiled is not ready to be stepped."""

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
        """Raise SequenceRefused if it has a grammar and none is taken here."""
        if sequence.grammar is not None and self._compiler is None:
            raise SequenceRefused("this engine takes no grammars")

    def admit(self, slot: int, sequence: Sequence) -> None:
        """Begin to make the sequence's grammar ready, if it has one; `require` has passed."""
        if sequence.grammar is not None:
            assert self._compiler is not None
            self._waiting[slot] = self._compiler.request(sequence.grammar), sequence

    def release(self, slot: int) -> None:
        self._waiting.pop(slot, None)
        self._matchers.pop(slot, None)
        self._dead_ends.discard(slot)

    def is_ready(self, slot: int) -> bool:
        return slot not in self._waiting

    def poll(self, *, wait: bool = False) -> Iterator[tuple[int, str | None]]:
        """Slots that have become ready, and those that cannot, with the fact."""
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
            matcher = compilation.compiled()
            led = all(matcher.accept(token_id) for token_id in sequence.output_ids)
            del self._waiting[slot]
            self._matchers[slot] = matcher
            yield slot, None if led else "the output so far does not follow it"

    def is_terminated(self, slot: int) -> bool:
        """Nothing may follow the slot's output."""
        matcher = self._matchers.get(slot)
        return matcher is not None and matcher.is_terminated

    def is_dead_end(self, slot: int) -> bool:
        """The last mask left the slot no token at all."""
        return slot in self._dead_ends

    def apply_bitmask(self, logits: Tensor, slots: Ints) -> None:
        """Set what may not come to minus infinity, in place, in the rows that these slots have."""
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
        """Go on by a token; False where the slot's grammar forbids it."""
        return slot not in self._matchers or self._matchers[slot].accept(token_id)

    def check_integrity(self, free: list[int]) -> None:
        """Raise AssertionError if a free slot has something."""
        held = self._waiting.keys() | self._matchers.keys() | self._dead_ends
        assert held.isdisjoint(free), "a grammar that no sequence has"

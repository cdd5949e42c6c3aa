"""Which sequence has which slot, and how far each has come."""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass

import numpy as np

from headrace_worker.engine.base.interface import FinishReason, NoFreeSlot, Sequence
from headrace_worker.engine.base.model_runner import Ints


@dataclass(eq=False, slots=True)
class ActiveSequence:
    """A sequence that has a slot."""

    sequence: Sequence
    slot: int
    context_ids: Ints
    """Prompt and output of earlier attempts: what is prefilled."""
    output_ids: list[int]
    stop_ids: frozenset[int]
    previous_finish: FinishReason | None
    """How it ended in an earlier attempt, if it did."""
    arrival: int = 0
    """Order of admission."""
    has_cache: bool = False
    """Whether cache is allocated for it."""
    cached_tokens: int = 0
    """How many tokens of `context_ids` were cached when it began."""

    @property
    def token_ids(self) -> Ints:
        """Prompt and all output."""
        return np.array((*self.sequence.prompt_ids, *self.output_ids), dtype=np.int64)


class SlotTable:
    """Every slot is free, prefilling or decoding; `lengths` is its cached tokens, 0 when free.

    Arrays are indexed by slot and live: a step writes lengths, last tokens and output indices of
    all its rows at once.
    """

    def __init__(self, count: int) -> None:
        self.sequences: dict[int, ActiveSequence] = {}
        """By sequence id."""
        self.by_slot: dict[int, ActiveSequence] = {}
        self.lengths: Ints = np.zeros(count, dtype=np.int64)
        self.last_tokens: Ints = np.zeros(count, dtype=np.int64)
        self.output_indices: Ints = np.zeros(count, dtype=np.int64)
        self.prefilling: deque[ActiveSequence] = deque()
        """Oldest first."""
        self._arrivals = 0
        self._decoding: list[int] = []
        self._decoding_array: Ints | None = None
        self.free = list(range(count))
        """Ascending."""

    @property
    def decoding(self) -> Ints:
        """Slots that get a token with every step, ascending."""
        if self._decoding_array is None:
            self._decoding_array = np.array(self._decoding, dtype=np.int64)
        return self._decoding_array

    def require_free(self) -> list[int]:
        """Return the free slots, ascending.

        Raises:
            NoFreeSlot: there is none.
        """
        if not self.free:
            raise NoFreeSlot(f"all {len(self.lengths)} slots are taken")
        return self.free

    def add(self, active: ActiveSequence) -> None:
        """Give the sequence its slot, which is free."""
        slot = active.slot
        self.free.remove(slot)
        self.sequences[active.sequence.sequence_id] = active
        self.by_slot[slot] = active
        self._arrivals += 1
        active.arrival = self._arrivals
        self.output_indices[slot] = len(active.output_ids)
        self.prefilling.append(active)

    def start_decoding(self, active: ActiveSequence) -> None:
        """Move the sequence from prefill to decode."""
        self.prefilling.remove(active)
        insort(self._decoding, active.slot)
        self._decoding_array = None

    def remove(self, active: ActiveSequence) -> None:
        slot = active.slot
        del self.sequences[active.sequence.sequence_id]
        if active in self.prefilling:
            self.prefilling.remove(active)
        else:
            self._decoding.remove(slot)
            self._decoding_array = None
        del self.by_slot[slot]
        self.lengths[slot] = 0
        insort(self.free, slot)

    @property
    def with_cache(self) -> list[ActiveSequence]:
        """Sequences that have begun, and so hold cache."""
        return [active for active in self.sequences.values() if active.has_cache]

    def least_urgent(self) -> ActiveSequence:
        """Return the newest of the least urgent sequences that hold cache."""
        return max(self.with_cache, key=lambda o: (o.sequence.priority, o.arrival))

    def check_integrity(self) -> None:
        """Raise AssertionError if a slot is lost, or held twice."""
        held = [active.slot for active in self.sequences.values()]
        working = self._decoding + [active.slot for active in self.prefilling]
        assert sorted(self.free + held) == list(range(len(self.lengths))), "slots lost or doubled"
        assert sorted(working) == sorted(held), "a held slot neither prefills nor decodes"
        assert self._decoding == self.decoding.tolist() == sorted(self._decoding)
        assert {active.slot: active for active in self.sequences.values()} == self.by_slot
        assert not self.lengths[self.free].any(), "a free slot caches tokens"

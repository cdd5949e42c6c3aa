"""Which sequence has which slot, and how far each has come."""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace_worker.engine.base.interface import FinishReason, NoFreeSlot, Sequence

Ints = NDArray[np.int64]


@dataclass(eq=False, slots=True)
class Occupant:
    """A sequence in its slot."""

    sequence: Sequence
    slot: int
    context_ids: Ints
    """Prompt and earlier attempts' output: what is prefilled."""
    output_ids: list[int]
    stop_ids: frozenset[int]
    over: FinishReason | None
    """How it ended before it came here, if it did."""
    arrival: int = 0
    """Grows with every sequence that is taken."""
    entered: bool = False
    """Whether its slot is ready for it."""
    known: int = 0
    """Of `context_ids`, how many were in its slot then."""

    @property
    def token_ids(self) -> Ints:
        """Prompt and all output."""
        return np.array((*self.sequence.prompt_ids, *self.output_ids), dtype=np.int64)


class Slots:
    """Every slot is free, prefilling or decoding; `lengths` is its cached tokens, 0 when free.

    Columns are by slot and the arrays are live: a step writes lengths, latest
    tokens and output indices for all its rows at once.
    """

    def __init__(self, count: int) -> None:
        self.occupants: dict[int, Occupant] = {}
        """By sequence id."""
        self.by_slot: list[Occupant | None] = [None] * count
        self.lengths: Ints = np.zeros(count, dtype=np.int64)
        self.latest: Ints = np.zeros(count, dtype=np.int64)
        self.output_indices: Ints = np.zeros(count, dtype=np.int64)
        self.prefilling: deque[Occupant] = deque()
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

    @property
    def taken(self) -> list[int]:
        """In no order."""
        return [occupant.slot for occupant in self.occupants.values()]

    def require_free(self) -> list[int]:
        """The free slots, ascending.

        Raises:
            NoFreeSlot: there is none.
        """
        if not self.free:
            raise NoFreeSlot(f"all {len(self.by_slot)} slots are taken")
        return self.free

    def occupy(self, occupant: Occupant) -> None:
        """Give the sequence its slot, which is free."""
        slot = occupant.slot
        self.free.remove(slot)
        self.occupants[occupant.sequence.sequence_id] = occupant
        self.by_slot[slot] = occupant
        self._arrivals += 1
        occupant.arrival = self._arrivals
        self.output_indices[slot] = len(occupant.output_ids)
        self.prefilling.append(occupant)

    def start_decoding(self, occupant: Occupant) -> None:
        """Its prefill is done."""
        self.prefilling.remove(occupant)
        insort(self._decoding, occupant.slot)
        self._decoding_array = None

    def vacate(self, occupant: Occupant) -> None:
        slot = occupant.slot
        del self.occupants[occupant.sequence.sequence_id]
        if occupant in self.prefilling:
            self.prefilling.remove(occupant)
        else:
            self._decoding.remove(slot)
            self._decoding_array = None
        self.by_slot[slot] = None
        self.lengths[slot] = 0
        insort(self.free, slot)

    @property
    def entered(self) -> list[Occupant]:
        """Those that have begun, and so hold something of the cache."""
        return [occupant for occupant in self.occupants.values() if occupant.entered]

    def least_urgent(self) -> Occupant:
        """The newest of those that have begun and are least urgent."""
        return max(self.entered, key=lambda o: (o.sequence.priority, o.arrival))

    def check_integrity(self) -> None:
        """Raise AssertionError if a slot is held by nobody, or twice."""
        held = [occupant.slot for occupant in self.occupants.values()]
        working = self._decoding + [occupant.slot for occupant in self.prefilling]
        assert sorted(self.free + held) == list(range(len(self.by_slot))), "slots lost or doubled"
        assert sorted(working) == sorted(held), "a held slot neither prefills nor decodes"
        assert self._decoding == self.decoding.tolist() == sorted(self._decoding)
        for slot, occupant in enumerate(self.by_slot):
            assert (occupant is None) == (slot in self.free), f"slot {slot} is free and taken"
            assert occupant is not None or self.lengths[slot] == 0, (
                f"free slot {slot} caches tokens"
            )

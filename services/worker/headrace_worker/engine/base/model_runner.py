"""What the slot engine asks of a model: one pass over some slots' next tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """The next tokens of one slot's prompt, which stand from `start` on."""

    slot: int
    start: int
    token_ids: Ints
    is_last_chunk: bool
    """Whether the prompt ends here, so the last token's logits are wanted."""
    all_logits: bool = False
    """Whether the logits behind every one of its tokens are wanted."""


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """One token for each of some slots, in columns, slots ascending."""

    slots: Ints
    token_ids: Ints
    positions: Ints


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What one pass is about: slots that decode, and pieces of prompts."""

    decoding: Ints
    prefills: tuple[PrefillChunk, ...]

    def __len__(self) -> int:
        return len(self.decoding) + len(self.prefills)

    def split(self) -> tuple[StepBatch, StepBatch]:
        cut = len(self) // 2
        decode, prefill = min(cut, len(self.decoding)), max(0, cut - len(self.decoding))
        return (
            StepBatch(self.decoding[:decode], self.prefills[:prefill]),
            StepBatch(self.decoding[decode:], self.prefills[prefill:]),
        )


@dataclass(frozen=True, slots=True)
class CacheSpace:
    """Of a cache that slots share, in tokens."""

    free: int
    total: int


class ModelRunner(Protocol):
    """A model with room for the context of every slot.

    A sequence is placed in a free slot, enters it just before its first pass, and
    leaves it. Not reentrant; the caller holds `torch.inference_mode`.
    """

    @property
    def supports_chunked_prefill(self) -> bool:
        """Whether a prompt may come in pieces; otherwise it comes whole."""
        ...

    @property
    def supports_prefix_caching(self) -> bool:
        """Whether `allocate` ever finds anything."""
        ...

    def assign_slot(
        self,
        free: Sequence[int],
        token_ids: Ints,
        adapter: str = "",
        *,
        salt: str = "",
        reuse: bool = True,
    ) -> int:
        """Choose one of the free slots, ascending, for a sequence with this context.

        `adapter` is the digest of one that is held, or empty. Beginnings are shared among equal
        salts alone. Without `reuse` all of the
        context will need a pass.
        """
        ...

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int | None:
        """Make the slot ready for the context that was placed there, and keep room for all of it.

        Returns how many of its first tokens need no pass, less than all. None, and
        nothing has changed, unless there is room for it and for `spare_tokens`
        beside; where nothing else has entered there is.
        """
        ...

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        """Make room for what entered these slots up to these lengths.

        False, and nothing has changed: not until others leave. Of one slot it is
        always true.
        """
        ...

    @property
    def cache_space(self) -> CacheSpace | None:
        """What is free of the cache; None where every slot has a whole context of its own."""
        ...

    def run(self, decode: DecodeBatch, prefills: Sequence[PrefillChunk]) -> Tensor:
        """Return the logits of the decode rows, then of the prefills: behind every token
        where that is wanted, else behind the last of those that complete.

        Shape `(rows, vocabulary)`, float32, the caller's to change. A pass that
        fails may be run again, whole or in parts: rows that came through it come
        out the same.
        """
        ...

    def release(self, slot: int, token_ids: Ints) -> None:
        """The slot is free. It holds the keys of `token_ids`; none, if they cannot be trusted."""
        ...

    @property
    def cached_hashes(self) -> Collection[bytes]:
        """Of all blocks that a context may begin with and that then need no pass, beginnings
        before what follows on them."""
        ...

    def check_integrity(self, free: Sequence[int]) -> None:
        """Raise AssertionError if something is held for nobody."""
        ...

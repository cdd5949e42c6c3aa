"""What a packed pass asks of the place where keys and values are kept.

Two keep them: `kv_strips`, a strip of context for every slot, and `kv_pages`,
blocks that slots take as they grow and that texts with one beginning share.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS, BlockHashes
from headrace_worker.engine.base.model_runner import CacheSpace, DecodeBatch, Ints, PrefillChunk


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's store: keys `(places, heads, tokens, key size)`, values alike.

    A place is a slot's strip, or a page.
    """

    keys: Tensor
    values: Tensor


class AttentionParams(NamedTuple):
    """What one layer's attention has beyond the plain kind."""

    scale: float | None
    """None: one over the root of the head size."""
    window: int | None
    """A token sees itself and the `window - 1` before it."""
    softcap: float | None
    sinks: Tensor | None
    """A logit per query head that takes its share of the softmax and yields nothing."""


class CacheRows(Protocol):
    """Some rows of a step: they write what they bring, then look back."""

    @property
    def rows(self) -> slice:
        """Their place in the packed row."""
        ...

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        """Keep their keys and values, each `(heads, rows, size)`."""
        ...

    def attend(self, layer: LayerCache, query: Tensor, form: AttentionParams) -> Tensor:
        """For `query` `(query heads, rows, size)` return `(rows, query heads, value size)`."""
        ...


@dataclass(frozen=True, slots=True)
class PromptContext:
    """A text about to be computed: its length, and the names of its full blocks."""

    tokens: int
    block_hashes: BlockHashes
    reuse: bool = True
    """Whether what others computed of it may be used."""

    @property
    def reusable(self) -> BlockHashes:
        """Those that need not be computed if known: the last token's logits are wanted."""
        return self.block_hashes[: (self.tokens - 1) // BLOCK_TOKENS] if self.reuse else []


class KvCache(Protocol):
    """Keys and values of `slots` texts of at most `tokens` tokens.

    A layer takes its shape from the first write: some architectures store keys
    and values of different sizes, which no configuration tells. What a slot in
    use can see beyond its text is always finite, or masked before it is summed.
    """

    slots: int
    tokens: int

    @property
    def layers(self) -> int:
        """Layers written so far."""
        ...

    @property
    def bytes_per_token(self) -> int:
        """What one position takes, over the layers written so far."""
        ...

    @property
    def cache_space(self) -> CacheSpace | None:
        """What is free; None where every slot has a whole context of its own."""
        ...

    def layer(self, index: int, key: Tensor, value: Tensor) -> LayerCache:
        """The store of one layer; `key` and `value` are `(1, heads, any, size)`."""
        ...

    def decode_rows(self, decode: DecodeBatch) -> CacheRows: ...

    def chunk_rows(self, prefill: PrefillChunk, row: int) -> CacheRows:
        """The rows of a prompt's piece, which begin at `row` of the packed row."""
        ...

    def assign_slot(self, free: Sequence[int], context: PromptContext) -> int:
        """Choose one of the free slots, ascending, for a text."""
        ...

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int | None:
        """Make the slot ready for the text placed there, and keep room for all of it.

        Returns how many of its first tokens are there already, in whole blocks; None, and
        nothing has changed, unless there is room for it and for `spare_tokens` beside.
        """
        ...

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        """Make room for these slots' texts up to these lengths; False: nothing has changed."""
        ...

    def mark_computed(self, slot: int, tokens: int) -> None:
        """So much of the text that entered is there now, for others to begin with."""
        ...

    def release(self, slot: int, names: BlockHashes) -> None:
        """The slot is free; it holds these blocks, none of them if they cannot be trusted.

        One that was placed and did not enter leaves what was there before it.
        """
        ...

    @property
    def cached_hashes(self) -> Collection[bytes]:
        """Of all blocks that a text may begin with, beginnings before what follows on them."""
        ...

    def check_integrity(self, free: Sequence[int]) -> None:
        """Raise AssertionError if something is held for nobody, or twice."""
        ...

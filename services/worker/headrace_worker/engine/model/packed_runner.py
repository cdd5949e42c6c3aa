"""Packed forward passes: all rows of a step in one, for models with replaceable attention."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace.prefixes import BlockHashes, adapter_root, block_hashes, salted_root
from headrace_worker.engine.base.model_runner import (
    CacheSpace,
    DecodeBatch,
    Ints,
    PrefillChunk,
    SequenceContext,
)
from headrace_worker.engine.kvcache.kv_cache import CacheRows, KvCache, PromptContext
from headrace_worker.engine.lora.adapters import Adapters
from headrace_worker.engine.model.packed_attention import StepAttention, attending


class PackedModelRunner:
    """A model whose attention is `headrace_packed`, with the cache that it writes to.

    Running the same step again writes the same keys to the same positions.
    """

    supports_chunked_prefill = True

    def __init__(
        self,
        model: PreTrainedModel,
        store: KvCache,
        *,
        prefix_root: bytes | None = None,
        adapters: Adapters | None = None,
        position_offsets: Mapping[int, int] | None = None,
    ) -> None:
        """`prefix_root` is what `root_hash` makes; without it no beginning is shared.

        `position_offsets`: by slot, the position of its first token where not 0, for probes.
        """
        self._model, self._store, self._root = model, store, prefix_root
        self._adapters = adapters or Adapters()
        self._roots: dict[int, bytes | None] = {}
        """By slot, the hash that the first block of its sequence follows."""
        self._position_offsets = position_offsets or {}

    @property
    def supports_prefix_caching(self) -> bool:
        return self._root is not None

    @property
    def cache_space(self) -> CacheSpace | None:
        return self._store.cache_space

    def assign_slot(self, free: Sequence[int], context: SequenceContext) -> int:
        root = self._root
        if root is not None:
            root = salted_root(adapter_root(root, context.adapter), context.salt)
        hashes = _hashes(context.token_ids, root)
        prompt = PromptContext(len(context.token_ids), hashes, context.reuse)
        slot = self._store.assign_slot(free, prompt)
        self._roots[slot] = root
        self._adapters.assign(slot, context.adapter)
        return slot

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int | None:
        return self._store.allocate(slot, spare_tokens=spare_tokens)

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        return self._store.reserve(slots, ends)

    def run(self, decode: DecodeBatch, prefills: Sequence[PrefillChunk]) -> Tensor:
        ids, positions, keep = _pack(decode, prefills, self._position_offsets)
        device = self._model.device
        attention = StepAttention(self._store, self._rows(decode, prefills))
        with attending(attention), self._adapters.active_for_pass(decode, prefills):
            output = self._model(
                input_ids=ids.to(device),
                position_ids=positions.to(device),
                use_cache=False,
                logits_to_keep=keep.to(device),
            )
        if not attention.calls:
            raise RuntimeError("the model does not use the attention it was given")
        for prefill in prefills:
            self._store.mark_computed(prefill.slot, prefill.start + len(prefill.token_ids))
        return cast(Tensor, output.logits)[0].float().cpu()

    def release(self, slot: int, token_ids: Ints) -> None:
        self._adapters.release(slot)
        self._store.release(slot, _hashes(token_ids, self._roots.pop(slot)))

    @property
    def cached_hashes(self) -> Collection[bytes]:
        return self._store.cached_hashes

    def check_integrity(self, free: Sequence[int]) -> None:
        self._store.check_integrity(free)
        self._adapters.check_integrity(free)

    def _rows(self, decode: DecodeBatch, prefills: Sequence[PrefillChunk]) -> list[CacheRows]:
        rows: list[CacheRows] = [self._store.decode_rows(decode)] if len(decode.slots) else []
        at = len(decode.slots)
        for prefill in prefills:
            rows.append(self._store.chunk_rows(prefill, at))
            at += len(prefill.token_ids)
        return rows


def _hashes(token_ids: Ints, root: bytes | None) -> BlockHashes:
    return [] if root is None else block_hashes(token_ids, root)


def _pack(
    decode: DecodeBatch, prefills: Sequence[PrefillChunk], position_offsets: Mapping[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids and positions `(1, rows)`, and the indices of rows whose logits are
    requested."""
    row = len(decode.slots)
    ids, positions = [decode.token_ids], [decode.positions]
    if position_offsets:
        first = [position_offsets.get(slot, 0) for slot in decode.slots.tolist()]
        positions[0] = decode.positions + np.array(first, dtype=np.int64)
    keep = list(range(row))
    for prefill in prefills:
        count = len(prefill.token_ids)
        ids.append(prefill.token_ids)
        begin = position_offsets.get(prefill.slot, 0) + prefill.start
        positions.append(np.arange(begin, begin + count))
        row += count
        keep.extend(range(row - prefill.num_logits, row))
    return (
        torch.from_numpy(np.concatenate(ids))[None],
        torch.from_numpy(np.concatenate(positions))[None],
        torch.tensor(keep, dtype=torch.int64),
    )

"""Stepwise forward passes: one cache per sequence, for models that cannot run packed.

Each sequence runs alone, as in transformers' `generate`; other sequences make it neither faster nor
different.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.base.model_runner import (
    DecodeBatch,
    Ints,
    PrefillChunk,
    SequenceContext,
)
from headrace_worker.engine.lora.adapters import Adapters


class OwnCache:
    """A model's cache of one sequence: keys and values, states, whatever the model returns."""

    def __init__(self, origin: int) -> None:
        self.first_position = origin
        """The position of its first token."""
        self.carried: dict[str, Any] = {"use_cache": True}
        """Arguments of the next call, as transformers updates them."""
        self.length = 0
        self.logits: Tensor | None = None
        """Logits of the last token, or of all tokens, of the latest pass; `(tokens,
        vocabulary)`."""
        self.failure: Exception | None = None

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(self.carried))


class StepwiseModelRunner:
    """A model with a cache for every slot in use."""

    supports_prefix_caching = False
    cached_hashes = frozenset[bytes]()
    cache_space = None

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        supports_chunked_prefill: bool,
        adapters: Adapters | None = None,
        position_offsets: Mapping[int, int] | None = None,
    ) -> None:
        """`position_offsets`: by slot, the position of its first token where not 0, for probes."""
        self._model: Any = model
        self._adapters = adapters or Adapters()
        self.supports_chunked_prefill = supports_chunked_prefill
        names = inspect.signature(model.forward).parameters
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self.caches: dict[int, OwnCache] = {}
        self._position_offsets = position_offsets or {}

    def run(self, decode: DecodeBatch, prefills: Sequence[PrefillChunk]) -> Tensor:
        columns = (decode.slots.tolist(), decode.positions.tolist())
        rows = [
            self._feed(slot, position, decode.token_ids[row : row + 1])
            for row, (slot, position) in enumerate(zip(*columns, strict=True))
        ]
        for prefill in prefills:
            logits = self._feed(
                prefill.slot, prefill.start, prefill.token_ids, all_logits=prefill.all_logits
            )
            if prefill.num_logits:
                rows.append(logits)
        return torch.cat(rows) if rows else torch.empty(0)

    def assign_slot(self, free: Sequence[int], context: SequenceContext) -> int:
        self._adapters.assign(free[0], context.adapter)
        return free[0]

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int:
        return 0

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        return True

    def release(self, slot: int, token_ids: Ints) -> None:
        self._adapters.release(slot)
        self.caches.pop(slot, None)

    def check_integrity(self, free: Sequence[int]) -> None:
        assert not self.caches.keys() & set(free), "a cache that no sequence has"
        self._adapters.check_integrity(free)

    def _feed(self, slot: int, start: int, token_ids: Ints, *, all_logits: bool = False) -> Tensor:
        """Return the logits of the last of `token_ids`, or of all; they begin at position
        `start`."""
        cache = self.caches.setdefault(slot, OwnCache(self._position_offsets.get(slot, 0)))
        if cache.failure is not None:
            # Some layers have the tokens and some do not: nothing can follow.
            raise cache.failure
        if cache.logits is not None and cache.length == start + len(token_ids):
            # They came through an earlier pass, which failed at another row.
            return cache.logits
        assert cache.length == start, f"slot {slot} holds {cache.length} tokens, not {start}"
        try:
            with self._adapters.active_for_slot(slot):
                cache.logits = self._call(
                    cache, torch.from_numpy(token_ids)[None], all_logits=all_logits
                )
        except Exception as failure:
            cache.failure = failure
            raise
        cache.length += len(token_ids)
        return cache.logits

    def _call(self, cache: OwnCache, token_ids: Tensor, *, all_logits: bool) -> Tensor:
        """Call the model, prepared and followed up as in `generate`."""
        count = token_ids.shape[1]
        inputs = self._model.prepare_inputs_for_generation(
            token_ids,
            next_sequence_length=count,
            is_first_iteration=cache.length == 0,
            attention_mask=token_ids.new_ones(1, cache.length + count),
            **cache.carried,
            **({} if all_logits else self._only_last),
        )
        if cache.first_position:
            first = cache.first_position + cache.length
            inputs["position_ids"] = torch.arange(first, first + count)[None]
        # Why what is carried again: Phi-3's own code drops its cache at the length where its
        # frequencies would change, for a whole sequence that it is not given here.
        output = self._model(**{**cache.carried, **inputs}, return_dict=True)
        cache.carried = self._model._update_model_kwargs_for_generation(output, {"use_cache": True})
        # Why a copy: without logits_to_keep this is one row of many.
        logits = cast(Tensor, output.logits)[0]
        return (logits if all_logits else logits[-1:]).to(torch.float32, copy=True)


def _tensors(thing: object) -> Iterator[Tensor]:
    """Yield all tensors of a cache, which is a tree of any shape."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for each in thing.values():
            yield from _tensors(each)
    elif isinstance(thing, list | tuple):
        for each in thing:
            yield from _tensors(each)
    elif type(thing).__module__.startswith("transformers."):
        yield from _tensors(vars(thing))

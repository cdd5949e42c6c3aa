"""The LoRA adapters of an engine, and which slot runs with which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headrace_worker.engine.base.interface import AdapterRefused, LoadedAdapter, SequenceRefused
from headrace_worker.engine.base.model_runner import DecodeBatch, Ints, PrefillChunk
from headrace_worker.engine.base.prepacked_linear import weight_of
from headrace_worker.engine.lora.adapter_files import LoraWeights, read_adapter
from headrace_worker.engine.lora.lora_layers import (
    NO_ADAPTER,
    ActiveAdapters,
    AdaptedModule,
    AdapterRows,
    activate_adapters,
)
from headrace_worker.engine.lora.target_modules import TargetModule


@dataclass(frozen=True, slots=True)
class LoadedLora(LoadedAdapter):
    """An adapter whose weights are on the device."""

    modules: Mapping[str, LoraWeights]


@dataclass(slots=True)
class _Held:
    number: int
    fitted: LoadedLora
    leaving: bool = False
    """Removed: no new sequence may use it; it is freed with the last slot that does."""


class Adapters:
    """Adapters by number, from 1. All but `load` is for the engine's thread only."""

    def __init__(
        self,
        sites: Mapping[str, TargetModule] | None = None,
        max_adapters: int = 0,
        max_rank: int = 64,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`sites` is the result of `find_target_modules`; without any, no adapter fits."""
        self._sites, self._dtype = sites or {}, dtype
        self._max_adapters, self._max_rank = max_adapters, max_rank
        self._held: dict[str, _Held] = {}
        """By digest."""
        self._patches: dict[str, AdaptedModule] = {}
        """By module path; modules that an adapter changes."""
        self._adapter_of_slot: dict[int, int] = {}
        """Adapter number by slot."""

    @property
    def is_empty(self) -> bool:
        """Whether no slot has an adapter."""
        return not self._adapter_of_slot

    def load(self, folder: Path) -> LoadedLora:
        """Read an adapter and check it against the model; from any thread.

        Raises:
            AdapterRefused: this model cannot run it, or its rank is too high.
        """
        files = read_adapter(folder)
        for path, copy in files.copies.items():
            own = weight_of(self._sites[path].module) if path in self._sites else None
            if own is None or not torch.equal(own, copy.to(own)):
                raise AdapterRefused(f"it brings weights of {path} that are not this model's")
        modules = {path: self._fitted(path, change) for path, change in files.modules.items()}
        return LoadedLora(
            files.digest,
            rank=max(change.rank for change in modules.values()),
            bytes=sum(change.bytes for change in modules.values()),
            modules=modules,
        )

    def _fitted(self, path: str, change: LoraWeights) -> LoraWeights:
        site = self._sites.get(path)
        if site is None:
            raise AdapterRefused(f"it changes {path}, which this model has not, or not as a layer")
        shape = change.lora_a.shape[1], change.lora_b.shape[1]
        if shape != (site.inputs, site.outputs):
            fact = f"{shape[0]} to {shape[1]}, where the model's is {site.inputs} to {site.outputs}"
            raise AdapterRefused(f"its {path} is {fact}")
        if change.rank > self._max_rank:
            raise AdapterRefused(f"its rank {change.rank} is over {self._max_rank}")
        device = next(site.module.parameters()).device
        halves = [half.to(device, self._dtype) for half in (change.lora_a, change.lora_b)]
        if not all(bool(half.isfinite().all()) for half in halves):
            raise AdapterRefused(f"its {path} has numbers too large for {self._dtype}")
        return LoraWeights(*halves)

    def add(self, fitted: LoadedAdapter) -> None:
        """Allow sequences to run with it; adding it twice is fine.

        Raises:
            AdapterRefused: the maximum number of adapters is loaded.
        """
        assert isinstance(fitted, LoadedLora)
        known = self._held.get(fitted.digest)
        staying = sum(not held.leaving for held in self._held.values())
        if (known is None or known.leaving) and staying >= self._max_adapters:
            raise AdapterRefused(f"{staying} adapters are held, which is the bound")
        if known is not None:
            known.leaving = False
            return
        numbers = {held.number for held in self._held.values()}
        number = next(n for n in range(NO_ADAPTER + 1, len(numbers) + 2) if n not in numbers)
        self._held[fitted.digest] = _Held(number, fitted)
        for path, change in fitted.modules.items():
            site = self._sites[path]
            patch = self._patches.setdefault(path, AdaptedModule(site.of_output_embeddings))
            patch.add_adapter(site.module, number, change)

    def remove(self, digest: str) -> None:
        """Refuse new sequences with it; free it once no slot has it."""
        held = self._held.get(digest)
        if held is not None:
            held.leaving = True
            self._drop_if_done(held)

    def _drop_if_done(self, held: _Held) -> None:
        if not held.leaving or held.number in self._adapter_of_slot.values():
            return
        for path in held.fitted.modules:
            self._patches[path].remove_adapter(held.number)
            if not self._patches[path].by_adapter:
                del self._patches[path]
        del self._held[held.fitted.digest]

    def require(self, digest: str) -> None:
        """Raise SequenceRefused unless a sequence may use this adapter; empty is none."""
        held = self._held.get(digest)
        if digest and (held is None or held.leaving):
            raise SequenceRefused(f"adapter {digest} is not held")

    def assign(self, slot: int, digest: str) -> None:
        """Give the slot this adapter; empty is none."""
        if digest:
            self._adapter_of_slot[slot] = self._held[digest].number

    def release(self, slot: int) -> None:
        """Take the adapter, if there is one, from the slot."""
        number = self._adapter_of_slot.pop(slot, None)
        if number is not None:
            self._drop_if_done(next(h for h in self._held.values() if h.number == number))

    def active_for_pass(
        self, decode: DecodeBatch, prefills: Sequence[PrefillChunk]
    ) -> AbstractContextManager[None]:
        """Apply adapters during a pass over these rows, decode rows first."""
        return activate_adapters(
            self._rows_by_adapter(decode, prefills) if self._adapter_of_slot else None
        )

    def active_for_slot(self, slot: int) -> AbstractContextManager[None]:
        """Apply the adapter of one slot during a pass over its rows."""
        if slot not in self._adapter_of_slot:
            return activate_adapters(None)
        rows = [AdapterRows(slice(None), self._numbers([slot]))]
        return activate_adapters(ActiveAdapters(rows, rows))

    def _rows_by_adapter(
        self, decode: DecodeBatch, prefills: Sequence[PrefillChunk]
    ) -> ActiveAdapters | None:
        decoding = self._numbers(decode.slots.tolist())
        chunks = self._numbers([prefill.slot for prefill in prefills])
        if not decoding.any() and not chunks.any():
            return None
        # A chunk apart: it has one adapter and many rows, of which none would be masked.
        spans, row = [AdapterRows(slice(0, len(decoding)), decoding)], len(decoding)
        for number, prefill in zip(chunks, prefills, strict=True):
            end = row + len(prefill.token_ids)
            spans.append(AdapterRows(slice(row, end), number[None]))
            row = end
        requested = [prefill.num_logits for prefill in prefills]
        kept = np.concatenate((decoding, np.repeat(chunks, requested)))
        return ActiveAdapters(
            [span for span in spans if span.adapters],
            [span for span in [AdapterRows(slice(0, len(kept)), kept)] if span.adapters],
        )

    def _numbers(self, slots: Sequence[int]) -> Ints:
        return np.array(
            [self._adapter_of_slot.get(slot, NO_ADAPTER) for slot in slots], dtype=np.int64
        )

    @property
    def bytes(self) -> int:
        """Memory of the loaded adapters."""
        return sum(held.fitted.bytes for held in self._held.values())

    def check_integrity(self, free: Sequence[int]) -> None:
        """Raise AssertionError if an adapter is lost, or a slot has one that is not loaded."""
        numbers = {held.number for held in self._held.values()}
        in_use = set(self._adapter_of_slot.values())
        assert in_use <= numbers, "a slot has an adapter that is not held"
        assert self._adapter_of_slot.keys().isdisjoint(free), "a free slot has an adapter"
        assert all(h.number in in_use for h in self._held.values() if h.leaving)
        patched = {n for patch in self._patches.values() for n in patch.by_adapter}
        assert patched == numbers, "a module is changed by what is not held"

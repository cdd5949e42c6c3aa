"""Build an engine around a loaded transformers model: cache size, model runner, adapters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from transformers import PreTrainedModel

from headrace.prefixes import BLOCK_TOKENS, root_hash
from headrace.sampling import names_in
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import Capabilities, EngineFacts
from headrace_worker.engine.base.memory import cache_budget
from headrace_worker.engine.base.model_runner import ModelRunner, PrefillChunk
from headrace_worker.engine.base.precision import Precision
from headrace_worker.engine.base.prepacked_linear import with_prepacked_weights
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.files.rope import fix_frequencies, longest_context, rope_choice
from headrace_worker.engine.gpu.async_scheduling import AsyncSlotEngine
from headrace_worker.engine.gpu.decode_graphs import DecodeGraphs
from headrace_worker.engine.gpu.devices import decode_graphs, device_attention
from headrace_worker.engine.grammar.compiler import CompileFunction
from headrace_worker.engine.kvcache.block_allocator import blocks_for
from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache
from headrace_worker.engine.kvcache.kv_cache import KvCache
from headrace_worker.engine.kvcache.paged_cache import PagedKvCache
from headrace_worker.engine.loading.probe_prompts import NOTHING_DECODES
from headrace_worker.engine.loading.selfcheck import (
    Checked,
    CheckFailed,
    check_packable,
    check_steppable,
)
from headrace_worker.engine.lora.adapters import Adapters
from headrace_worker.engine.lora.target_modules import TracedRows, find_target_modules
from headrace_worker.engine.model.packed_runner import PackedModelRunner
from headrace_worker.engine.model.stepwise_runner import StepwiseModelRunner
from headrace_worker.engine.model.tensor_parallel import is_joined, leading, smallest_of_all

log = logging.getLogger(__name__)

T = TypeVar("T")

_PACKED_SLOTS = {"cpu": 64, "cuda": 256}
_STEPWISE_SLOTS = 8
"""Fewer: sequences that run one after the other gain nothing from more slots."""
_CONTEXT_TOKENS = 4096
_CHUNK_TOKENS = 128


class CacheTooSmall(Exception):
    """The memory for the cache does not hold one slot."""


@dataclass(frozen=True, slots=True)
class EngineBuilder:
    """A loaded model, and what its engine needs to know."""

    model: PreTrainedModel
    settings: WorkerSettings
    eos_token_ids: tuple[int, ...] = ()
    weights_digest: str = ""
    compile_grammar: CompileFunction | None = None
    """Compiles for the model's tokenizer; without it, sequences with a grammar are refused."""
    cache_bytes: int | None = None
    """Size of the cache; None: what `memory_utilization` leaves."""
    async_scheduling: bool | None = None
    """Whether decode steps are launched before the last one is read; None: on a GPU."""

    def build(self) -> SlotEngine:
        """Build the fastest engine whose logits are those of the plain model.

        Raises:
            CheckFailed: no engine is correct for this model; with every reason.
            CacheTooSmall: the cache does not hold one slot.
        """
        return with_prepacked_weights(self.model, self._packed_or_stepwise, CheckFailed)

    def _packed_or_stepwise(self) -> SlotEngine:
        try:
            return self.packed()
        except CheckFailed as not_packed:
            try:
                return self.stepwise()
            except CheckFailed as not_stepwise:
                fact = f"packed, {not_packed}; stepwise, {not_stepwise}"
                raise CheckFailed(fact) from not_stepwise

    def packed(self) -> SlotEngine:
        """Check that the model can run packed and reserve its key-value cache.

        Raises:
            CheckFailed: packed, the model computes other logits, or fails.
            CacheTooSmall: the cache does not hold one slot.
        """
        model, new_cache = self.model, self._cache_factory()
        probe, context_tokens = self._checked(
            lambda tokens: check_packable(model, new_cache, tokens),
            at_most=_CONTEXT_TOKENS if new_cache is ContiguousKvCache else None,
        )
        adapters = self.adapters(PackedModelRunner(model, probe), packed=True)
        if isinstance(probe, PagedKvCache):
            cache: KvCache = self._sized_paged_cache(probe, context_tokens)
        else:
            slot_bytes = probe.bytes_per_token * context_tokens
            slots = self._max_slots(slot_bytes, default=_PACKED_SLOTS["cpu"])
            cache = probe.resized(slots, context_tokens)
        facts = self._facts("packed", cache.slots, cache.tokens)
        root = root_hash(facts.weights_digest) if self.settings.prefix_cache else None
        runner = PackedModelRunner(model, cache, prefix_root=root, adapters=adapters)
        is_async = self.async_scheduling
        if is_async is None:
            is_async = model.device.type != "cpu"
        graphs = None
        if is_async and not is_joined() and isinstance(cache, PagedKvCache):
            graphs = decode_graphs(model, cache)
        return self._engine(runner, facts, adapters, graphs)

    def stepwise(self) -> SlotEngine:
        """Check that the model can run with one cache per sequence, one sequence after the other.

        Raises:
            CheckFailed: so, the model computes other logits, or fails.
            CacheTooSmall: the cache does not hold one slot.
        """
        check = partial(check_steppable, self.model)
        found, context_tokens = self._checked(check, at_most=_CONTEXT_TOKENS)
        slots = self._max_slots(found.slot_bytes(context_tokens), default=_STEPWISE_SLOTS)
        new_runner = partial(
            StepwiseModelRunner,
            self.model,
            supports_chunked_prefill=found.supports_chunked_prefill,
        )
        adapters = self.adapters(new_runner(), packed=False)
        facts = self._facts("stepwise", slots, context_tokens)
        return self._engine(new_runner(adapters=adapters), facts, adapters)

    def adapters(self, probe: ModelRunner, *, packed: bool) -> Adapters:
        """Return a store without adapters yet; a pass through `probe` finds the modules to
        adapt."""
        model, settings = self.model, self.settings
        if settings.adapters_dir is None:
            return Adapters()
        prompts = [
            PrefillChunk(slot, 0, np.arange(5 - slot), is_last_chunk=True) for slot in (0, 1)
        ]
        rows = TracedRows(rows=9, kept=2) if packed else None
        modules = find_target_modules(model, lambda: probe.run(NOTHING_DECODES, prompts), rows)
        return Adapters(modules, settings.max_adapters, settings.max_adapter_rank, model.dtype)

    def _engine(
        self,
        runner: ModelRunner,
        facts: EngineFacts,
        adapters: Adapters,
        graphs: DecodeGraphs | None = None,
    ) -> SlotEngine:
        new = SlotEngine if graphs is None else partial(AsyncSlotEngine, graphs=graphs)
        return new(
            leading(runner),
            facts,
            adapters,
            prefill_chunk_tokens=self.settings.prefill_chunk_tokens or _CHUNK_TOKENS,
            compile_grammar=self.compile_grammar,
        )

    def _checked(self, check: Callable[[int], Checked[T]], *, at_most: int | None) -> tuple[T, int]:
        """Check the model; return the result and the served context.

        The context is cut where layers with a window are wrong beyond their window.
        """
        self.model.train(False)
        context_tokens = self._context_tokens(at_most)
        fix_frequencies(self.model, context_tokens)
        checked = check(context_tokens)
        bound = checked.max_context_tokens
        if bound is None or context_tokens <= bound:
            return checked.result, context_tokens
        why = f"its layers that look back {bound} tokens at most come out wrong in longer contexts"
        log.warning("engine.context_ended", extra={"context_tokens": bound, "why": why})
        return checked.result, bound

    def _context_tokens(self, at_most: int | None) -> int:
        """Return the context that is set, else `at_most`, within the model's own bounds."""
        config, requested = self.model.config.get_text_config(), self.settings.context_tokens
        names = ("max_position_embeddings", "max_seq_len")
        bounds: list[int | None] = [getattr(config, name, None) for name in names]
        if requested is None:
            bounds.append(at_most)
        else:
            bounds = [longest_context(config), *bounds[1:], requested]
        return min((bound for bound in bounds if bound is not None), default=_CONTEXT_TOKENS)

    def _cache_factory(self) -> Callable[[int, int], ContiguousKvCache | PagedKvCache]:
        device, kind = self.model.device, self.settings.kv_store
        if kind == "strips" or (kind == "auto" and device.type == "cpu"):
            return ContiguousKvCache
        attention = device_attention(device)
        return partial(PagedKvCache, device=str(device), device_attention=attention)

    def _sized_paged_cache(self, probe: PagedKvCache, context_tokens: int) -> PagedKvCache:
        """Return a cache of as many blocks as the memory holds, at most what all slots can fill."""
        settings = self.settings
        max_slots = settings.max_slots or _PACKED_SLOTS[self.model.device.type]
        block_bytes = probe.bytes_per_token * BLOCK_TOKENS
        cache_bytes = self._cache_bytes()
        # One is the null block.
        blocks = cache_bytes // block_bytes - 1
        if settings.cache_tokens is not None:
            blocks = min(blocks, settings.cache_tokens // BLOCK_TOKENS)
        if settings.context_tokens is None:
            context_tokens = min(context_tokens, blocks * BLOCK_TOKENS)
        blocks_per_slot = max(1, int(blocks_for(context_tokens)))
        if blocks < blocks_per_slot:
            raise CacheTooSmall(
                f"one context takes {blocks_per_slot} blocks of {block_bytes} bytes, and one block"
                f" is unused; {cache_bytes} bytes and {max(0, blocks)} blocks are allowed"
            )
        blocks = min(blocks, max_slots * blocks_per_slot)
        return probe.resized(max_slots, context_tokens, blocks=blocks)

    def _max_slots(self, slot_bytes: int, *, default: int) -> int:
        cache_bytes = self._cache_bytes()
        fit = cache_bytes // slot_bytes
        if fit < 1:
            raise CacheTooSmall(f"one slot takes {slot_bytes} bytes and {cache_bytes} are allowed")
        return min(fit, self.settings.max_slots or default)

    def _cache_bytes(self) -> int:
        if self.cache_bytes is not None:
            return self.cache_bytes
        tensors = [*self.model.parameters(), *self.model.buffers()]
        weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        utilization = self.settings.memory_utilization
        budget = cache_budget(self.model.device, utilization=utilization, weights=weights)
        return smallest_of_all(budget)

    def _facts(self, name: str, max_slots: int, context_tokens: int) -> EngineFacts:
        """Fix the rotary frequencies for the served context and describe the engine."""
        model, digest = self.model, self.weights_digest
        config = model.config.get_text_config()
        fix_frequencies(model, context_tokens)
        choice = rope_choice(config, context_tokens)
        dtype = str(model.dtype).removeprefix("torch.")
        precision = Precision(dtype, self.settings.quantization)
        return EngineFacts(
            name=name,
            dtype=precision.name,
            max_slots=max_slots,
            context_tokens=context_tokens,
            vocabulary_size=config.vocab_size,
            eos_token_ids=self.eos_token_ids,
            weights_digest=digest if choice is None else choice.digest(digest),
            # Packed, rounding varies with the neighbours in every type; stepwise, with
            # where a prompt was cut.
            batch_invariant=precision.batch_invariant,
            capabilities=Capabilities(
                logprobs=True,
                grammar=self.compile_grammar is not None,
                token_masks=True,
                cache_salt=True,
                sampling=names_in("transformers").keys(),
            ),
        )

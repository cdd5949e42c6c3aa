"""Build an engine around a loaded transformers model: cache size, model runner, adapters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
from headrace_worker.engine.gpu.devices import decode_graphs, device_attention
from headrace_worker.engine.grammar.compiler import CompileFunction
from headrace_worker.engine.kvcache.block_allocator import blocks_for
from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache
from headrace_worker.engine.kvcache.kv_cache import KvCache
from headrace_worker.engine.kvcache.paged_cache import PagedKvCache
from headrace_worker.engine.loading.probe_prompts import NOTHING_DECODES
from headrace_worker.engine.loading.selfcheck import (
    CheckFailed,
    PackedCheckFailed,
    check_packable,
    check_steppable,
)
from headrace_worker.engine.lora.adapters import Adapters
from headrace_worker.engine.lora.target_modules import TracedRows, find_target_modules
from headrace_worker.engine.model.packed_runner import PackedModelRunner
from headrace_worker.engine.model.stepwise_runner import StepwiseModelRunner
from headrace_worker.engine.model.tensor_parallel import is_joined, leading, smallest_of_all

log = logging.getLogger(__name__)

_PACKED_SLOTS = {"cpu": 64, "cuda": 256}
_STEPWISE_SLOTS = 8
"""Fewer: sequences that run one after the other gain nothing from more slots."""
_CONTEXT_TOKENS = 4096
_CHUNK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What an engine needs to know beside its model and the worker's settings."""

    eos_token_ids: tuple[int, ...] = ()
    weights_digest: str = ""
    compile_grammar: CompileFunction | None = None
    """Compiles for the model's tokenizer; without it, sequences with a grammar are refused."""
    cache_bytes: int | None = None
    """Size of the cache; None: what `memory_utilization` leaves."""
    async_scheduling: bool | None = None
    """Whether decode steps are launched before the last one is read; None: on a GPU."""


class CacheTooSmall(Exception):
    """The memory for the cache does not hold one slot."""


def build(model: PreTrainedModel, settings: WorkerSettings, context: EngineContext) -> SlotEngine:
    """Build the fastest engine whose logits are those of the plain model.

    Raises:
        CheckFailed: no engine is correct for this model; with every reason.
        CacheTooSmall: the cache does not hold one slot.
    """
    return with_prepacked_weights(model, lambda: _build(model, settings, context), CheckFailed)


def _build(model: PreTrainedModel, settings: WorkerSettings, context: EngineContext) -> SlotEngine:
    try:
        return build_packed(model, settings, context)
    except PackedCheckFailed as not_packed:
        try:
            return build_stepwise(model, settings, context)
        except CheckFailed as not_stepwise:
            raise CheckFailed(f"packed, {not_packed}; stepwise, {not_stepwise}") from not_stepwise


def build_packed(
    model: PreTrainedModel, settings: WorkerSettings, context: EngineContext
) -> SlotEngine:
    """Check that the model can run packed and reserve its key-value cache.

    Raises:
        PackedCheckFailed: packed, the model computes other logits, or fails.
        CacheTooSmall: the cache does not hold one slot.
    """
    model.train(False)
    new_cache = _cache_factory(model, settings)
    at_most = _CONTEXT_TOKENS if new_cache is ContiguousKvCache else None
    context_tokens = _context_tokens(model, settings, at_most=at_most)
    fix_frequencies(model, context_tokens)
    check = check_packable(model, new_cache, context_tokens)
    context_tokens = _bounded_context(context_tokens, check.max_context_tokens)
    probe = check.probe
    adapters = adapters_for(model, settings, PackedModelRunner(model, probe), packed=True)
    if isinstance(probe, PagedKvCache):
        cache: KvCache = _sized_paged_cache(probe, model, settings, context, context_tokens)
    else:
        slot_bytes = probe.bytes_per_token * context_tokens
        default_slots = _PACKED_SLOTS["cpu"]
        slots = _max_slots(model, settings, context, slot_bytes, default=default_slots)
        cache = probe.resized(slots, context_tokens)
    facts = _facts("packed", model, settings, context, (cache.slots, cache.tokens))
    root = root_hash(facts.weights_digest) if settings.prefix_cache else None
    runner = PackedModelRunner(model, cache, prefix_root=root, adapters=adapters)
    requested = context.async_scheduling
    is_async = (model.device.type != "cpu" if requested is None else requested) and not is_joined()
    graphs = decode_graphs(model, cache) if is_async and isinstance(cache, PagedKvCache) else None
    new = SlotEngine if graphs is None else partial(AsyncSlotEngine, graphs=graphs)
    return new(
        leading(runner),
        facts,
        adapters=adapters,
        prefill_chunk_tokens=settings.prefill_chunk_tokens or _CHUNK_TOKENS,
        compile_grammar=context.compile_grammar,
    )


def _cache_factory(
    model: PreTrainedModel, settings: WorkerSettings
) -> Callable[[int, int], ContiguousKvCache | PagedKvCache]:
    on_gpu = model.device.type != "cpu"
    if settings.kv_store == "strips" or (settings.kv_store == "auto" and not on_gpu):
        return ContiguousKvCache
    attention = device_attention(model.device)
    return partial(PagedKvCache, device=str(model.device), device_attention=attention)


def _sized_paged_cache(
    probe: PagedKvCache,
    model: PreTrainedModel,
    settings: WorkerSettings,
    context: EngineContext,
    context_tokens: int,
) -> PagedKvCache:
    """Return a cache of as many blocks as the memory holds, at most what all slots can fill."""
    max_slots = settings.max_slots or _PACKED_SLOTS[model.device.type]
    block_bytes = probe.bytes_per_token * BLOCK_TOKENS
    cache_bytes = _cache_bytes(model, settings, context)
    # One is the null block.
    blocks = cache_bytes // block_bytes - 1
    if settings.cache_tokens is not None:
        blocks = min(blocks, settings.cache_tokens // BLOCK_TOKENS)
    if settings.context_tokens is None:
        context_tokens = min(context_tokens, blocks * BLOCK_TOKENS)
    blocks_per_slot = max(1, int(blocks_for(context_tokens)))
    if blocks < blocks_per_slot:
        raise CacheTooSmall(
            f"one context takes {blocks_per_slot} blocks of {block_bytes} bytes, and one block is"
            f" unused; {cache_bytes} bytes and {max(0, blocks)} blocks are allowed"
        )
    blocks = min(blocks, max_slots * blocks_per_slot)
    return probe.resized(max_slots, context_tokens, blocks=blocks)


def build_stepwise(
    model: PreTrainedModel, settings: WorkerSettings, context: EngineContext
) -> SlotEngine:
    """Check that the model can run with one cache per sequence, one sequence after the other.

    Raises:
        StepwiseCheckFailed: so, the model computes other logits, or fails.
        CacheTooSmall: the cache does not hold one slot.
    """
    model.train(False)
    context_tokens = _context_tokens(model, settings, at_most=_CONTEXT_TOKENS)
    fix_frequencies(model, context_tokens)
    check = check_steppable(model, context_tokens)
    context_tokens = _bounded_context(context_tokens, check.max_context_tokens)
    slot_bytes = check.slot_bytes(context_tokens)
    slots = _max_slots(model, settings, context, slot_bytes, default=_STEPWISE_SLOTS)
    new_runner = partial(
        StepwiseModelRunner, model, supports_chunked_prefill=check.supports_chunked_prefill
    )
    adapters = adapters_for(model, settings, new_runner(), packed=False)
    return SlotEngine(
        leading(new_runner(adapters=adapters)),
        _facts("stepwise", model, settings, context, (slots, context_tokens)),
        adapters=adapters,
        prefill_chunk_tokens=settings.prefill_chunk_tokens or _CHUNK_TOKENS,
        compile_grammar=context.compile_grammar,
    )


def adapters_for(
    model: PreTrainedModel, settings: WorkerSettings, probe: ModelRunner, *, packed: bool
) -> Adapters:
    """Return a store without adapters yet; a pass through `probe` finds the modules to adapt."""
    if settings.adapters_dir is None:
        return Adapters()
    prompts = [PrefillChunk(slot, 0, np.arange(5 - slot), is_last_chunk=True) for slot in (0, 1)]
    rows = TracedRows(rows=9, kept=2) if packed else None
    modules = find_target_modules(model, lambda: probe.run(NOTHING_DECODES, prompts), rows)
    return Adapters(modules, settings.max_adapters, settings.max_adapter_rank, model.dtype)


def _facts(
    name: str,
    model: PreTrainedModel,
    settings: WorkerSettings,
    context: EngineContext,
    size: tuple[int, int],
) -> EngineFacts:
    """Fix the rotary frequencies for the served context and describe the engine.

    `size`: slots and context tokens.
    """
    max_slots, context_tokens = size
    config = model.config.get_text_config()
    fix_frequencies(model, context_tokens)
    choice = rope_choice(config, context_tokens)
    precision = Precision(str(model.dtype).removeprefix("torch."), settings.quantization)
    digest = context.weights_digest
    return EngineFacts(
        name=name,
        dtype=precision.name,
        max_slots=max_slots,
        context_tokens=context_tokens,
        vocabulary_size=config.vocab_size,
        eos_token_ids=context.eos_token_ids,
        weights_digest=digest if choice is None else choice.digest(digest),
        # Packed, rounding varies with the neighbours in every type; stepwise, with
        # where a prompt was cut.
        batch_invariant=precision.batch_invariant,
        capabilities=Capabilities(
            logprobs=True,
            grammar=context.compile_grammar is not None,
            token_masks=True,
            cache_salt=True,
            sampling=names_in("transformers").keys(),
        ),
    )


def _context_tokens(
    model: PreTrainedModel, settings: WorkerSettings, *, at_most: int | None
) -> int:
    """Return the context that is set, else `at_most`, within the model's own bounds."""
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    bounds: list[int | None] = [getattr(config, name, None) for name in names]
    if settings.context_tokens is None:
        bounds.append(at_most)
    else:
        bounds = [longest_context(config), *bounds[1:], settings.context_tokens]
    return min((bound for bound in bounds if bound is not None), default=_CONTEXT_TOKENS)


def _bounded_context(context_tokens: int, bound: int | None) -> int:
    """Return the context, cut where layers with a window are wrong beyond their window."""
    if bound is None or context_tokens <= bound:
        return context_tokens
    reason = f"its layers that look back {bound} tokens at most come out wrong in longer contexts"
    log.warning("engine.context_ended", extra={"context_tokens": bound, "why": reason})
    return bound


def _max_slots(
    model: PreTrainedModel,
    settings: WorkerSettings,
    context: EngineContext,
    slot_bytes: int,
    *,
    default: int,
) -> int:
    cache_bytes = _cache_bytes(model, settings, context)
    fit = cache_bytes // slot_bytes
    if fit < 1:
        raise CacheTooSmall(f"one slot takes {slot_bytes} bytes and {cache_bytes} are allowed")
    return min(fit, default if settings.max_slots is None else settings.max_slots)


def _cache_bytes(model: PreTrainedModel, settings: WorkerSettings, context: EngineContext) -> int:
    if context.cache_bytes is not None:
        return context.cache_bytes
    tensors = [*model.parameters(), *model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    utilization = settings.memory_utilization
    return smallest_of_all(cache_budget(model.device, utilization=utilization, weights=weights))

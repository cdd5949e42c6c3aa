"""From a transformers model in memory to an engine that computes what the model says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from transformers import PreTrainedModel

from headrace.prefixes import BLOCK_TOKENS, root_name
from headrace.sampling import names_in
from headrace_worker.engine.base.forward import Decode, Forward, Prefill
from headrace_worker.engine.base.interface import Capabilities, EngineFacts
from headrace_worker.engine.base.memory import cache_budget
from headrace_worker.engine.base.precision import Precision
from headrace_worker.engine.base.products import with_laid_out
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.files.rope import fix_frequencies, longest_context, rope_choice
from headrace_worker.engine.gpu.async_scheduling import AheadEngine
from headrace_worker.engine.gpu.decode_graphs import DecodeGraphs
from headrace_worker.engine.gpu.devices import decode_graphs, device_attention
from headrace_worker.engine.grammar.compiling import Compile
from headrace_worker.engine.kvcache.contiguous import KvStrips
from headrace_worker.engine.kvcache.paged import KvPages
from headrace_worker.engine.kvcache.store import KvStore
from headrace_worker.engine.loading.selfcheck import (
    NotPackable,
    Unfit,
    check_packable,
    check_steppable,
)
from headrace_worker.engine.lora.adapter_sites import Rows, find_sites
from headrace_worker.engine.lora.adapters import AdapterBounds, Adapters
from headrace_worker.engine.model.packed import PackedForward
from headrace_worker.engine.model.parallel import is_joined, leading, least
from headrace_worker.engine.model.stepwise import StepwiseForward

log = logging.getLogger(__name__)

_PACKED_SLOTS = {"cpu": 64, "cuda": 256}
_STEPWISE_SLOTS = 8
"""Fewer, for company makes no sequence faster: who waits for a slot loses nothing."""
_CONTEXT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How much an engine holds."""

    max_slots: int | None = None
    """None: 64 packed, 256 on a GPU, 8 stepwise, or as many as `cache_bytes` takes."""
    context_tokens: int | None = None
    """None: the model's own, at most 4096 where every slot reserves it."""
    prefill_chunk_tokens: int = 128
    """Prompt tokens of a step. Too small: long prompts wait; too large:
    everyone else does."""
    cache_tokens: int | None = None
    """Of the pages, all sequences together; None: what `cache_bytes` takes, or all slots."""
    cache_bytes: int | None = None
    """None: what `memory_utilization` leaves. On a CPU reserved, not taken, until used."""
    prefix_cache: bool = True
    """Whether contexts that begin alike are computed once. Packed only."""
    kv_store: str = "auto"
    """`strips` or `pages`, packed only; `auto`: strips on a CPU, pages on a GPU."""
    ahead: bool | None = None
    """Whether decode steps are launched before the last one is read; pages only. None: on a GPU."""
    memory_utilization: float | None = None
    """Share of the device's memory that weights and cache may take; None: 0.5, of a GPU's 0.9."""
    adapters: AdapterBounds = field(default_factory=AdapterBounds)


@dataclass(frozen=True, slots=True)
class Origin:
    """What an engine cannot learn from its model."""

    eos_token_ids: tuple[int, ...] = ()
    weights_digest: str = ""
    compile_grammar: Compile | None = None
    """For the model's tokenizer; without it sequences with a grammar are refused."""
    quantization: str = "none"
    """As `Precision` has it."""


class CacheTooSmall(Exception):
    """Not even one slot fits."""


def build(model: PreTrainedModel, settings: EngineSettings, origin: Origin) -> SlotEngine:
    """Give the model the fastest engine that computes what the model does.

    Raises:
        Unfit: none does; with every reason.
        CacheTooSmall: `cache_bytes` does not take one slot.
    """
    return with_laid_out(model, lambda: _build(model, settings, origin), Unfit)


def _build(model: PreTrainedModel, settings: EngineSettings, origin: Origin) -> SlotEngine:
    try:
        return build_packed(model, settings, origin)
    except NotPackable as unpackable:
        try:
            return build_stepwise(model, settings, origin)
        except Unfit as fact:
            raise Unfit(f"packed, {unpackable}; stepwise, {fact}") from fact


def build_packed(model: PreTrainedModel, settings: EngineSettings, origin: Origin) -> SlotEngine:
    """Check the model and reserve a store for its keys and values.

    Raises:
        NotPackable: the packed path is not right for this model.
        CacheTooSmall: `cache_bytes` does not take one slot.
    """
    model.train(False)
    new_store = _kind_of_store(model, settings)
    at_most = _CONTEXT_TOKENS if new_store is KvStrips else None
    context_tokens = _context_tokens(model, settings, at_most=at_most)
    fix_frequencies(model, context_tokens)
    packing = check_packable(model, new_store, context_tokens)
    context_tokens = _within(context_tokens, packing.at_most_tokens)
    trial = packing.trial
    adapters = adapters_for(model, settings.adapters, PackedForward(model, trial), packed=True)
    if isinstance(trial, KvPages):
        store: KvStore = _sized_pages(trial, model, settings, context_tokens)
    else:
        store = _sized_strips(trial, model, settings, context_tokens)
    facts = _facts("packed", model, origin, max_slots=store.slots, context_tokens=store.tokens)
    root = root_name(facts.weights_digest) if settings.prefix_cache else None
    forward = PackedForward(model, store, prefix_root=root, adapters=adapters)
    ahead = model.device.type != "cpu" if settings.ahead is None else settings.ahead
    ahead = ahead and not is_joined()
    graphs = decode_graphs(model, store) if ahead and isinstance(store, KvPages) else None
    return _engine(model, forward, facts, settings, origin, adapters, graphs=graphs)


def _kind_of_store(
    model: PreTrainedModel, settings: EngineSettings
) -> Callable[[int, int], KvStrips | KvPages]:
    on_gpu = model.device.type != "cpu"
    if settings.kv_store == "strips" or (settings.kv_store == "auto" and not on_gpu):
        return KvStrips
    attention = device_attention(model.device)
    return partial(KvPages, device=str(model.device), device_attention=attention)


def _sized_strips(
    trial: KvStrips, model: PreTrainedModel, settings: EngineSettings, context_tokens: int
) -> KvStrips:
    slot_bytes = trial.bytes_per_token * context_tokens
    max_slots = _max_slots(model, settings, slot_bytes, at_most=_PACKED_SLOTS["cpu"])
    return trial.resized(max_slots, context_tokens)


def _sized_pages(
    trial: KvPages, model: PreTrainedModel, settings: EngineSettings, context_tokens: int
) -> KvPages:
    """As many pages as the memory takes, and never more than all slots can fill."""
    max_slots = settings.max_slots or _PACKED_SLOTS[model.device.type]
    page_bytes = trial.bytes_per_token * BLOCK_TOKENS
    cache_bytes = _cache_bytes(model, settings)
    # One is for the trash.
    pages = cache_bytes // page_bytes - 1
    if settings.cache_tokens is not None:
        pages = min(pages, settings.cache_tokens // BLOCK_TOKENS)
    if settings.context_tokens is None:
        context_tokens = min(context_tokens, pages * BLOCK_TOKENS)
    blocks = -(-context_tokens // BLOCK_TOKENS)
    if pages < max(1, blocks):
        least = max(1, blocks)
        raise CacheTooSmall(
            f"one context takes {least} pages of {page_bytes} bytes, and one is for the trash; "
            f"{cache_bytes} bytes and {max(0, pages)} pages are allowed"
        )
    return trial.resized(max_slots, context_tokens, pages=min(pages, max_slots * blocks))


def build_stepwise(model: PreTrainedModel, settings: EngineSettings, origin: Origin) -> SlotEngine:
    """Check the model one cache per sequence.

    Raises:
        NotSteppable: this is not right for this model either.
        CacheTooSmall: `cache_bytes` does not take one slot.
    """
    model.train(False)
    context_tokens = _context_tokens(model, settings, at_most=_CONTEXT_TOKENS)
    fix_frequencies(model, context_tokens)
    stepping = check_steppable(model, context_tokens)
    context_tokens = _within(context_tokens, stepping.at_most_tokens)
    slot_bytes = stepping.slot_bytes(context_tokens)
    max_slots = _max_slots(model, settings, slot_bytes, at_most=_STEPWISE_SLOTS)
    chunks = stepping.chunks_prompts
    adapters = adapters_for(
        model, settings.adapters, StepwiseForward(model, chunks_prompts=chunks), packed=False
    )
    forward = StepwiseForward(model, chunks_prompts=chunks, adapters=adapters)
    facts = _facts("stepwise", model, origin, max_slots=max_slots, context_tokens=context_tokens)
    return _engine(model, forward, facts, settings, origin, adapters)


def _engine(
    model: PreTrainedModel,
    forward: Forward,
    facts: EngineFacts,
    settings: EngineSettings,
    origin: Origin,
    adapters: Adapters,
    *,
    graphs: DecodeGraphs | None = None,
) -> SlotEngine:
    new = SlotEngine if graphs is None else partial(AheadEngine, graphs=graphs)
    return new(
        leading(forward),
        facts,
        adapters=adapters,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
        compile_grammar=origin.compile_grammar,
    )


def adapters_for(
    model: PreTrainedModel, bounds: AdapterBounds, trial: Forward, *, packed: bool
) -> Adapters:
    """None yet; where there may be any, a pass through `trial` says what they may change."""
    if not bounds.max_adapters:
        return Adapters()
    prompts = [Prefill(slot, 0, np.arange(5 - slot), completes=True) for slot in (0, 1)]
    nothing = np.empty(0, dtype=np.int64)
    none = Decode(nothing, nothing, nothing)
    rows = Rows(rows=9, kept=2) if packed else None
    return Adapters(find_sites(model, lambda: trial.run(none, prompts), rows), bounds, model.dtype)


def _facts(
    name: str, model: PreTrainedModel, origin: Origin, *, max_slots: int, context_tokens: int
) -> EngineFacts:
    """Of an engine about to serve; from here on the model has the frequencies of this context."""
    config = model.config.get_text_config()
    fix_frequencies(model, context_tokens)
    choice = rope_choice(config, context_tokens)
    precision = Precision(str(model.dtype).removeprefix("torch."), origin.quantization)
    digest = origin.weights_digest
    return EngineFacts(
        name=name,
        dtype=precision.name,
        max_slots=max_slots,
        context_tokens=context_tokens,
        vocabulary_size=config.vocab_size,
        eos_token_ids=origin.eos_token_ids,
        weights_digest=digest if choice is None else choice.digest(digest),
        # Packed, rounding varies with the neighbours in every type; stepwise, with
        # where a prompt was cut.
        batch_invariant=precision.batch_invariant,
        capabilities=Capabilities(
            logprobs=True,
            grammar=origin.compile_grammar is not None,
            token_masks=True,
            cache_salt=True,
            sampling=names_in("transformers").keys(),
        ),
    )


def _context_tokens(
    model: PreTrainedModel, settings: EngineSettings, *, at_most: int | None
) -> int:
    """What is asked for, else `at_most`; no more than the model's own bounds in any case."""
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    bounds: list[int | None] = [getattr(config, name, None) for name in names]
    if settings.context_tokens is None:
        bounds.append(at_most)
    else:
        bounds = [longest_context(config), *bounds[1:], settings.context_tokens]
    return min((bound for bound in bounds if bound is not None), default=_CONTEXT_TOKENS)


def _within(context_tokens: int, bound: int | None) -> int:
    """The context, ended where layers that look back so far would come out wrong."""
    if bound is None or context_tokens <= bound:
        return context_tokens
    why = f"its layers that look back {bound} tokens at most come out wrong in longer contexts"
    log.warning("engine.context_ended", extra={"context_tokens": bound, "why": why})
    return bound


def _max_slots(
    model: PreTrainedModel, settings: EngineSettings, slot_bytes: int, *, at_most: int
) -> int:
    cache_bytes = _cache_bytes(model, settings)
    fit = cache_bytes // slot_bytes
    if fit < 1:
        raise CacheTooSmall(f"one slot takes {slot_bytes} bytes and {cache_bytes} are allowed")
    return min(fit, at_most if settings.max_slots is None else settings.max_slots)


def _cache_bytes(model: PreTrainedModel, settings: EngineSettings) -> int:
    if settings.cache_bytes is not None:
        return settings.cache_bytes
    weights = _weights_bytes(model)
    return least(
        cache_budget(model.device, utilization=settings.memory_utilization, weights=weights)
    )


def _weights_bytes(model: PreTrainedModel) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

"""From a transformers model in memory to an engine that computes what the model says."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
from transformers import PreTrainedModel

from headrace_worker.engine.forward import Forward
from headrace_worker.engine.interface import EngineFacts
from headrace_worker.engine.packed import PackedForward
from headrace_worker.engine.prefixes import root_name
from headrace_worker.engine.selfcheck import (
    NotPackable,
    Unfit,
    check_packable,
    check_steppable,
)
from headrace_worker.engine.slot_engine import SlotEngine
from headrace_worker.engine.stepwise import StepwiseForward

_PACKED_SLOTS = 64
_STEPWISE_SLOTS = 8
"""Fewer, for company makes no sequence faster: who waits for a slot loses nothing."""
_CONTEXT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How much an engine holds."""

    max_slots: int | None = None
    """None: 64 packed, 8 stepwise, or as many as `cache_bytes` takes."""
    context_tokens: int | None = None
    """None: the model's own, at most 4096, since every slot reserves it."""
    prefill_chunk_tokens: int = 128
    """Prompt tokens of a step. Too small: long prompts wait; too large: everyone else does."""
    cache_bytes: int | None = None
    """None: half of the memory that is free now. Reserved, not taken, until used."""
    prefix_cache: bool = True
    """Whether contexts that begin alike are computed once. Packed only."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What an engine cannot learn from its model."""

    eos_token_ids: tuple[int, ...] = ()
    weights_digest: str = ""


class CacheTooSmall(Exception):
    """Not even one slot fits."""


def build(model: PreTrainedModel, settings: EngineSettings, origin: Origin) -> SlotEngine:
    """Give the model the fastest engine that computes what the model does.

    Raises:
        Unfit: none does; with every reason.
        CacheTooSmall: `cache_bytes` does not take one slot.
    """
    try:
        return build_packed(model, settings, origin)
    except NotPackable as unpackable:
        try:
            return build_stepwise(model, settings, origin)
        except Unfit as fact:
            raise Unfit(f"packed, {unpackable}; stepwise, {fact}") from fact


def build_packed(model: PreTrainedModel, settings: EngineSettings, origin: Origin) -> SlotEngine:
    """Check the model and reserve strips for its keys and values.

    Raises:
        NotPackable: the packed path is not right for this model.
        CacheTooSmall: `cache_bytes` does not take one slot.
    """
    model.train(False)
    trial = check_packable(model)
    # Why the chunk: layers that attend within chunks do not tell the attention
    # function, but up to one chunk they are like all others.
    context_tokens = _context_tokens(model, settings, "attention_chunk_size")
    slot_bytes = trial.bytes_per_token * context_tokens
    max_slots = _max_slots(settings, slot_bytes, at_most=_PACKED_SLOTS)
    root = root_name(origin.weights_digest) if settings.prefix_cache else None
    forward = PackedForward(model, trial.resized(max_slots, context_tokens), prefix_root=root)
    facts = _facts("packed", model, origin, max_slots=max_slots, context_tokens=context_tokens)
    return _engine(forward, facts, settings)


def build_stepwise(model: PreTrainedModel, settings: EngineSettings, origin: Origin) -> SlotEngine:
    """Check the model one cache per sequence.

    Raises:
        NotSteppable: this is not right for this model either.
        CacheTooSmall: `cache_bytes` does not take one slot.
    """
    model.train(False)
    stepping = check_steppable(model)
    context_tokens = _context_tokens(model, settings)
    slot_bytes = stepping.slot_bytes(context_tokens)
    max_slots = _max_slots(settings, slot_bytes, at_most=_STEPWISE_SLOTS)
    forward = StepwiseForward(model, chunks_prompts=stepping.chunks_prompts)
    facts = _facts("stepwise", model, origin, max_slots=max_slots, context_tokens=context_tokens)
    return _engine(forward, facts, settings)


def _engine(forward: Forward, facts: EngineFacts, settings: EngineSettings) -> SlotEngine:
    return SlotEngine(forward, facts, prefill_chunk_tokens=settings.prefill_chunk_tokens)


def _facts(
    name: str, model: PreTrainedModel, origin: Origin, *, max_slots: int, context_tokens: int
) -> EngineFacts:
    return EngineFacts(
        name=name,
        dtype=str(model.dtype).removeprefix("torch."),
        max_slots=max_slots,
        context_tokens=context_tokens,
        vocabulary_size=model.config.get_text_config().vocab_size,
        eos_token_ids=origin.eos_token_ids,
        weights_digest=origin.weights_digest,
        # Packed, rounding varies with the neighbours in every type; stepwise, with
        # where a prompt was cut. Only in float32 is it far below the margins
        # between tokens.
        batch_invariant=str(model.dtype) == "torch.float32",
    )


def _context_tokens(model: PreTrainedModel, settings: EngineSettings, *more: str) -> int:
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len", *more)
    bounds: list[int | None] = [getattr(config, name, None) for name in names]
    wanted = settings.context_tokens
    bounds.append(_CONTEXT_TOKENS if wanted is None else wanted)
    return min(bound for bound in bounds if bound is not None)


def _max_slots(settings: EngineSettings, slot_bytes: int, *, at_most: int) -> int:
    cache_bytes = settings.cache_bytes
    if cache_bytes is None:
        cache_bytes = psutil.virtual_memory().available // 2
    fit = cache_bytes // slot_bytes
    if fit < 1:
        raise CacheTooSmall(f"one slot takes {slot_bytes} bytes and {cache_bytes} are allowed")
    return min(fit, at_most if settings.max_slots is None else settings.max_slots)

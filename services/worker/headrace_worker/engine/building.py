"""From a transformers model in memory to a packed engine."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
from transformers import PreTrainedModel

from headrace_worker.engine.forward import PackedForward
from headrace_worker.engine.interface import EngineFacts
from headrace_worker.engine.packed import PackedEngine
from headrace_worker.engine.selfcheck import check_packable

_SLOTS = 64
_CONTEXT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class PackedSettings:
    """How much a packed engine holds."""

    max_slots: int | None = None
    """None: 64, or as many as `cache_bytes` takes."""
    context_tokens: int | None = None
    """None: the model's own, at most 4096, since every slot reserves it."""
    prefill_chunk_tokens: int = 128
    """Prompt tokens of a step. Too small: long prompts wait; too large: everyone else does."""
    cache_bytes: int | None = None
    """None: half of the memory that is free now. Reserved, not taken, until used."""


class CacheTooSmall(Exception):
    """Not even one slot fits."""


def build_packed(
    model: PreTrainedModel,
    settings: PackedSettings,
    *,
    eos_token_ids: tuple[int, ...] = (),
    weights_digest: str = "",
) -> PackedEngine:
    """Check the model, reserve its cache and give it an engine.

    Raises:
        NotPackable: the packed path is not right for this model.
        CacheTooSmall: `cache_bytes` does not take one slot.
    """
    model.train(False)
    trial = check_packable(model)
    context_tokens = _context_tokens(model, settings.context_tokens)
    max_slots = _max_slots(settings, trial.bytes_per_token * context_tokens)
    facts = EngineFacts(
        name="packed",
        dtype=str(model.dtype).removeprefix("torch."),
        max_slots=max_slots,
        context_tokens=context_tokens,
        vocabulary_size=model.config.get_text_config().vocab_size,
        eos_token_ids=eos_token_ids,
        weights_digest=weights_digest,
        # Rounding varies with the neighbours in every type; only in float32 is it
        # far below the margins between tokens.
        batch_invariant=str(model.dtype) == "torch.float32",
    )
    forward = PackedForward(model, trial.resized(max_slots, context_tokens))
    return PackedEngine(forward, facts, prefill_chunk_tokens=settings.prefill_chunk_tokens)


def _context_tokens(model: PreTrainedModel, wanted: int | None) -> int:
    config = model.config.get_text_config()
    # Why the chunk: layers that attend within chunks do not tell the attention
    # function, but up to one chunk they are like all others.
    names = ("max_position_embeddings", "attention_chunk_size")
    bounds: list[int | None] = [getattr(config, name, None) for name in names]
    bounds.append(_CONTEXT_TOKENS if wanted is None else wanted)
    return min(bound for bound in bounds if bound is not None)


def _max_slots(settings: PackedSettings, slot_bytes: int) -> int:
    cache_bytes = settings.cache_bytes
    if cache_bytes is None:
        cache_bytes = psutil.virtual_memory().available // 2
    fit = cache_bytes // slot_bytes
    if fit < 1:
        raise CacheTooSmall(f"one slot takes {slot_bytes} bytes and {cache_bytes} are allowed")
    return min(fit, _SLOTS if settings.max_slots is None else settings.max_slots)

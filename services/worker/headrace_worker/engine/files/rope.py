"""Rotary frequencies chosen once per model, not by the longest sequence of a pass.

LongRoPE (Phi-3, Phi-3.5, Phi-4-mini, Phi-MoE, MiniCPM3) has one set of frequencies for short
contexts and one for long ones; dynamic NTK has another set for every length. transformers takes the
set of the longest sequence in the pass for all sequences. A token would then depend on other
requests of the batch, on prefill chunks, on the prefix cache and on the attempt. So every pass here
takes the set of a sequence that fills the served context, as vLLM does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

_LAST_POSITION = "headrace_last_position"
"""Attribute of a rotary module with fixed frequencies: the position they are chosen by."""


@dataclass(frozen=True, slots=True)
class RopeChoice:
    """Frequencies other than those of short contexts."""

    name: str
    """Equal for equal frequencies of one model."""
    reason: str

    def digest(self, weights_digest: str) -> str:
        """Return another digest of the weights: with other frequencies they make other tokens.

        So an answer is only ever resumed by a worker with the same frequencies.
        """
        kind, _, _ = weights_digest.partition(":")
        return f"{kind}:{sha256(f'{weights_digest} {self.name}'.encode()).hexdigest()}"


def fix_frequencies(model: PreTrainedModel, context_tokens: int) -> None:
    """Give every pass the frequencies of a context of `context_tokens`; may be called again.

    Why not computed here: the rotary module itself chooses, because the last position of the
    context comes with every pass. So attention factors and whatever else depends on length are
    chosen with the frequencies.
    """
    for module in model.modules():
        if any(map(_follows_length, _rope_types(module))):
            if not hasattr(module, _LAST_POSITION):
                _append_last_position(module)
            setattr(module, _LAST_POSITION, context_tokens - 1)


def rope_choice(config: PreTrainedConfig, context_tokens: int) -> RopeChoice | None:
    """Return the frequencies for a served context of this length; None: those of short contexts."""
    choices = dict.fromkeys(
        choice
        for scaling in _scalings(config)
        if (choice := _choice(config, scaling, context_tokens)) is not None
    )
    if not choices:
        return None
    return RopeChoice("; ".join(each.name for each in choices), next(iter(choices)).reason)


def longest_context(config: PreTrainedConfig) -> int | None:
    """Return the positions that the model has at most, with scaled frequencies."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    factors = [s.get("factor") for s in _scalings(config) if "dynamic" in _type_of(s)]
    if positions is None or not factors:
        return positions
    return int(positions * max(1.0, *(float(factor or 1) for factor in factors)))


def _choice(
    config: PreTrainedConfig, scaling: Mapping[str, Any], context_tokens: int
) -> RopeChoice | None:
    if _type_of(scaling) == "longrope":
        bound = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
        name, what = f"longrope over {bound}", "the long factors of LongRoPE"
    elif "dynamic" in _type_of(scaling):
        bound = config.max_position_embeddings
        name, what = f"dynamic for {context_tokens}", f"dynamic NTK for {context_tokens} tokens"
    else:
        return None
    if context_tokens <= bound:
        return None
    why = f"{what}, whatever a sequence's length, for context_tokens is {context_tokens}"
    return RopeChoice(name, f"{why}; at most {bound} takes the frequencies of short sequences")


def _scalings(config: PreTrainedConfig) -> Iterator[Mapping[str, Any]]:
    """Yield the rope parameters of the model, or of each type of its layers."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        yield parameters
        return
    yield from (each for each in parameters.values() if isinstance(each, Mapping))


def _type_of(scaling: Mapping[str, Any]) -> str:
    return str(scaling.get("rope_type", "default"))


def _rope_types(module: nn.Module) -> list[str]:
    """Return one type, or one for each type of layers."""
    found = getattr(module, "rope_type", None)
    types = found.values() if isinstance(found, dict) else [found]
    return [each for each in types if isinstance(each, str)]


def _follows_length(rope_type: str) -> bool:
    return rope_type == "longrope" or "dynamic" in rope_type


def _append_last_position(module: nn.Module) -> None:
    """Make the module choose by one more position than it is called with."""
    choose = module.forward

    def forward(x: Tensor, position_ids: Tensor, *more: Any, **named: Any) -> Any:
        last = position_ids.new_full((*position_ids.shape[:-1], 1), getattr(module, _LAST_POSITION))
        found = choose(x, torch.cat((position_ids, last), dim=-1), *more, **named)
        if isinstance(found, Tensor):
            return found[..., :-1, :]
        return tuple(each[..., :-1, :] for each in found)

    cast(Any, module).forward = forward

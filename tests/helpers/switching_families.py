"""Tiny models that change their ways at a length: frequencies, windows, chunks, scaled queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helpers.families import FAMILIES

SWITCH = 24
"""The length at which each of them does."""
CONTEXT = 64

_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4, 8, 3, 2, 6, 5, 4, 9],
    "original_max_position_embeddings": SWITCH,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
_ATTENTION_OF_16 = {"qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}


@dataclass(frozen=True, slots=True)
class Switching:
    """An architecture, and what `random_model` needs to make it tiny."""

    model_type: str
    changes: dict[str, Any]
    context_tokens: int = CONTEXT
    """Of a context that it may be served with, packed."""
    chooses_by_the_longest: bool = False
    """Whether transformers lets the longest text of a pass choose for all of them."""


def _rope(model_type: str, parameters: dict[str, Any], **changes: Any) -> Switching:
    shape = {"max_position_embeddings": CONTEXT, "rope_parameters": parameters, **changes}
    return Switching(model_type, shape, chooses_by_the_longest=True)


SWITCHING: dict[str, Switching] = {
    "llama, LongRoPE": _rope("llama", _LONG),
    "phi3, LongRoPE": _rope("phi3", _LONG, pad_token_id=0, original_max_position_embeddings=SWITCH),
    "phi3, LongRoPE and a window": _rope(
        "phi3", _LONG, pad_token_id=0, original_max_position_embeddings=SWITCH, sliding_window=30
    ),
    "phimoe, LongRoPE": _rope(
        "phimoe",
        {**_LONG, "short_mscale": 1.0, "long_mscale": 1.3},
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    "minicpm3, LongRoPE": _rope(
        "minicpm3",
        _LONG,
        num_key_value_heads=4,
        head_dim=16,
        q_lora_rank=24,
        kv_lora_rank=16,
        **_ATTENTION_OF_16,
    ),
    "llama, dynamic NTK": _rope("llama", _DYNAMIC, max_position_embeddings=SWITCH),
    "gemma3, dynamic NTK in one of its layers": _rope(
        "gemma3_text",
        {
            "full_attention": _DYNAMIC,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        layer_types=["sliding_attention", "full_attention"],
        head_dim=16,
        sliding_window=9,
        max_position_embeddings=SWITCH,
    ),
    "mistral, a window": Switching("mistral", {"sliding_window": SWITCH}),
    "gemma2, a window": Switching("gemma2", {**FAMILIES["gemma2"], "sliding_window": SWITCH}),
    "cohere2, a window": Switching("cohere2", {"sliding_window": SWITCH}),
    "gpt_oss, sinks and a window": Switching(
        "gpt_oss", {**FAMILIES["gpt_oss"], "sliding_window": SWITCH}
    ),
    "llama4, chunks": Switching(
        "llama4_text",
        {"intermediate_size_mlp": 96, "head_dim": 16, "attention_chunk_size": SWITCH},
        context_tokens=SWITCH,
    ),
    "llama4, scaled queries": Switching(
        "llama4_text",
        {
            "intermediate_size_mlp": 96,
            "head_dim": 16,
            "attention_chunk_size": CONTEXT,
            "no_rope_layers": [1, 0],
            "floor_scale": SWITCH,
            "attn_scale": 4.0,
        },
        context_tokens=SWITCH - 1,
    ),
}

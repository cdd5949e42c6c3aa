"""Architectures that can be packed, each with what `random_model` needs to make it tiny."""

from __future__ import annotations

_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "mistral": {"sliding_window": 9},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16,
        "sliding_window": 9,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 2.0,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": 9},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": {},
    "codegen": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "head_dim": 16, **_EXPERTS},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 16, "sliding_window": 9, **_EXPERTS},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 12,
        **_EXPERTS,
    },
    "olmo2": {},
    "granite": {},
    "cohere2": {"sliding_window": 9},
    "stablelm": {},
    "starcoder2": {},
    "smollm3": {"pad_token_id": 0},
    "opt": {"word_embed_proj_dim": 64, "ffn_dim": 96},
}

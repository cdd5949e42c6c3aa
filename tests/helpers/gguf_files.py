"""A Llama of transformers as a 32-bit GGUF file, with its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.base.loaded_model import TokenizerFiles

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(model: PreTrainedModel, tokenizer: TokenizerFiles, file: Path) -> Path:
    """Byte-level BPE tokenizers and plain rotary positions only."""
    writer = gguf.GGUFWriter(str(file), "llama")
    _write_shape(writer, model.config)
    _write_tokenizer(writer, tokenizer, model.config.vocab_size)
    for name, tensor in model.state_dict().items():
        if not (name == "lm_head.weight" and model.config.tie_word_embeddings):
            writer.add_tensor(_gguf_name(name), _as_gguf(name, tensor, model.config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_shape(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _write_tokenizer(writer: gguf.GGUFWriter, files: TokenizerFiles, size: int) -> None:
    tokenizer = json.loads(files.tokenizer_json)
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    if (bos := files.special_tokens.get("bos_token")) is not None:
        writer.add_bos_token_id(special[bos])
    known = {token_id: text for text, token_id in (tokenizer["model"]["vocab"] | special).items()}
    # A row of the embedding that no token has is a token too, of a text that nobody writes.
    tokens = [known.get(token_id, f"<unused{token_id}>") for token_id in range(size)]
    kinds = [
        gguf.TokenType.CONTROL
        if text in special or text.startswith("<unused")
        else gguf.TokenType.NORMAL
        for text in tokens
    ]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_eos_token_id(files.eos_token_ids[0])
    writer.add_add_bos_token(False)
    if files.chat_template is not None:
        writer.add_chat_template(files.chat_template)


def _gguf_name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.weight"


def _as_gguf(name: str, tensor: Tensor, config: Any) -> np.ndarray[Any, Any]:
    weight = tensor.float().numpy()
    if name.endswith("q_proj.weight"):
        weight = _interleaved(weight, config.num_attention_heads)
    elif name.endswith("k_proj.weight"):
        weight = _interleaved(weight, config.num_key_value_heads)
    return np.ascontiguousarray(weight)


def _interleaved(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """From rotating halves (transformers) to rotating neighbours (llama.cpp)."""
    rows, columns = weight.shape
    split = weight.reshape(heads, 2, rows // heads // 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns)

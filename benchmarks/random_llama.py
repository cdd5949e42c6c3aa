"""Random Llamas of several sizes, in folders that every serving system loads.

Its text is gibberish; serving systems are compared on it, not models. Tokens that are not
whole printable text have output weights of zero, so greedy decoding never says them: every
answer runs to its max_tokens, on servers that know no `ignore_eos` too.

python benchmarks/random_llama.py FOLDER [9m | 30m | 135m]
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SHAPES: dict[str, dict[str, Any]] = {
    "9m": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    | {"num_attention_heads": 8, "num_key_value_heads": 4},
    "30m": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8}
    | {"num_attention_heads": 8, "num_key_value_heads": 4},
    # SmolLM-135M's layers, 36 of them: its vocabulary is larger and it has 30.
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 36}
    | {"num_attention_heads": 9, "num_key_value_heads": 3},
}
"""By their parameters."""
VOCABULARY, CONTEXT_TOKENS, CORPUS_BYTES = 8192, 2048, 4_000_000
CHAT_TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""


def make(folder: Path, shape: str = "9m") -> None:
    """Write weights, tokenizer and chat template; takes some seconds."""
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        **SHAPES[shape],
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[_unsayable(tokenizer)] = 0
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _corpus() -> Iterator[str]:
    """Sources of Python's standard library: text that is everywhere."""
    left = CORPUS_BYTES
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        yield text
        left -= len(text)
        if left <= 0:
            return


def _tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BEGIN, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _unsayable(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    texts = tokenizer.batch_decode([[token_id] for token_id in range(len(tokenizer))])
    special = {PAD, BEGIN, END, *ROLES}
    return [
        token_id
        for token_id, text in enumerate(texts)
        if text in special or "\ufffd" in text or not text.strip()
    ]


if __name__ == "__main__":
    make(Path(sys.argv[1]), *sys.argv[2:3])

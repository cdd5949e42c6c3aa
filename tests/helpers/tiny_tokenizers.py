"""Small tokenizers of the kinds that are met, made in a moment, and bundles of them."""

from __future__ import annotations

from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from headrace.internal.v1.model_card_pb2 import TokenizerBundle

BEGIN, END = "<|begin|>", "<|end|>"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
"""Of `word_pieces`, by id."""

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_CORPUS = (
    "the river runs past the mill and the wheel turns the stone",
    "Ada's café serves 你好 and 車 in the valley; naïve façade, 12345!",
    "👩‍👩‍👧‍👦🏽 😀😁😂🤣 水水水 ééé ßßß\n\n\t STOP stop STO",
)


@cache
def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: a character may take several tokens, and end within one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    return tokenizer


@cache
def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral: spaces are part of words, rare characters are bytes."""
    characters = sorted(set("".join(_CORPUS[:1])) | {"▁"})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    tokens += ["▁t", "he", "▁the", "▁r"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "r")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in tokens[:3]])
    return tokenizer


@cache
def word_pieces() -> Tokenizer:
    """As BERT's: [CLS] a [SEP], and [CLS] a [SEP] b [SEP] with types."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=SPECIALS, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS[:1] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def bundle(tokenizer: Tokenizer, chat_template: str | None = CHATML) -> TokenizerBundle:
    return TokenizerBundle(
        tokenizer_json=tokenizer.to_str().encode(),
        chat_template=chat_template,
        special_tokens={"bos_token": BEGIN, "eos_token": END},
    )

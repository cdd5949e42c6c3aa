"""Tokenizers as sentencepiece writes them, trained in a moment."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

_CORPUS = [
    f"the quick brown fox number {number} jumps over the lazy dogs of river {number * 7}, 水 naïve"
    for number in range(200)
]


@cache
def sentence_pieces(model_type: str = "bpe", vocab_size: int = 200) -> bytes:
    """A `tokenizer.model`: `unk` 0, `bos` 1, `eos` 2."""
    import sentencepiece

    written = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(_CORPUS),
        model_writer=written,
        model_type=model_type,
        vocab_size=vocab_size,
        character_coverage=1.0,
        minloglevel=2,
    )
    return written.getvalue()

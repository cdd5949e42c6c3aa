"""Tokenizers as gateways need them, from a folder, the Hugging Face hub or a GGUF file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from headrace_worker.engine.loaded import ModelLoadFailed, TokenizerFiles

UNREADABLE = (OSError, ValueError, KeyError, TypeError, ImportError, StrictDataclassError)
"""What transformers raises at files it cannot make sense of."""


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def tokenizer_files(
    source: str, folder: Path | str, eos_token_ids: tuple[int, ...] = (), **more: Any
) -> TokenizerFiles:
    """Whatever form it has there, as `tokenizer.json`; no code of its own is run.

    `folder` may be a hub id. `more` goes to `AutoTokenizer.from_pretrained`.

    Raises:
        ModelLoadFailed: for `source`, with the reason.
    """
    # Why here: it takes seconds to import, and what fails before should say so at once.
    from transformers import AutoTokenizer

    local = Path(folder).expanduser()
    folder = local if local.is_dir() else folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **more)
    except UNREADABLE as error:
        raise ModelLoadFailed(source, f"its tokenizer: {first_line(error)}") from error
    if len(tokenizer) == 0:
        # transformers makes an empty one where there are no files.
        raise ModelLoadFailed(source, "its folder has no tokenizer (no tokenizer.json)")
    with tempfile.TemporaryDirectory() as made:
        tokenizer.save_pretrained(made)
        saved = Path(made) / "tokenizer.json"
        if not saved.is_file():
            raise ModelLoadFailed(source, "its tokenizer has no tokenizer.json form")
        tokenizer_json = saved.read_bytes()
    templates = tokenizer.chat_template
    return TokenizerFiles(
        tokenizer_json,
        templates.get("default") if isinstance(templates, dict) else templates,
        {
            role: text
            for role, text in tokenizer.special_tokens_map.items()
            if isinstance(text, str)
        },
        eos_token_ids or (() if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)),
    )

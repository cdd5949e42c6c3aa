"""Engines of other projects, as the worker loads them, over models that are made here."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from headrace_worker.engine.backends.llama_cpp import LlamaCppSettings, load_llama_cpp
from headrace_worker.engine.backends.openai_backend import UpstreamProtocol
from headrace_worker.engine.backends.openai_loader import OpenAISettings, load_openai
from headrace_worker.engine.backends.scripted_text import (
    end_token,
    scripted_tokenizer_files,
    vocabulary_size,
)
from headrace_worker.engine.backends.upstream import UpstreamSettings
from headrace_worker.engine.base.loaded_model import LoadedModel
from helpers.gguf_files import write_gguf
from helpers.tiny_models import random_model


def scripted_tokenizer(folder: Path) -> str:
    """The scripted engine's tokenizer in a folder."""
    scripted_tokenizer_files().write_to(folder)
    return str(folder)


def worded_llama() -> PreTrainedModel:
    """A tiny model with a row for each token of the scripted engine's tokenizer, some of whose
    answers end of themselves."""
    model = random_model("llama", vocab_size=vocabulary_size())
    with torch.no_grad():
        model.lm_head.weight[end_token()] *= 2
    return model


def save_worded_llama(folder: Path) -> None:
    """As transformers has it."""
    scripted_tokenizer(folder)
    model = worded_llama()
    model.config.eos_token_id = model.generation_config.eos_token_id = end_token()
    model.save_pretrained(folder)


def llama_cpp(folder: Path, *, context_tokens: int = 128) -> LoadedModel:
    """`worded_llama` in llama.cpp with room for 4 sequences; its files are left in `folder`."""
    file = folder / "tiny.gguf"
    if not file.exists():
        write_gguf(worded_llama(), scripted_tokenizer_files(), file)
    tokenizer = scripted_tokenizer(folder / "tokenizer")
    return load_llama_cpp(LlamaCppSettings(str(file), tokenizer, 1, 4, context_tokens))


def upstream(
    folder: Path,
    url: str,
    model: str,
    *,
    speech: UpstreamProtocol = UpstreamProtocol.TOKEN_IDS,
    settings: UpstreamSettings | None = None,
    context_tokens: int | None = 128,
) -> LoadedModel:
    """A model of a server that uses the scripted engine's tokenizer; room for 4 sequences."""
    tokenizer = scripted_tokenizer(folder / "tokenizer")
    chosen = settings or UpstreamSettings(url)
    return load_openai(OpenAISettings(chosen, model, tokenizer, speech, 4, context_tokens))

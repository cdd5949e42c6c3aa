"""Engines of other projects, as the worker loads them, over models that are made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.llama_cpp import load_llama_cpp
from headrace_worker.engine.backends.openai_backend import UpstreamProtocol
from headrace_worker.engine.backends.openai_loader import load_openai
from headrace_worker.engine.backends.scripted_text import (
    end_token,
    scripted_tokenizer_files,
    vocabulary_size,
)
from headrace_worker.engine.base.loaded_model import LoadedModel
from helpers.gguf_files import write_gguf
from helpers.tiny_models import random_model
from helpers.tokenizer_folders import write_tokenizer
from helpers.worker_settings import worker_settings


def scripted_tokenizer(folder: Path) -> str:
    """The scripted engine's tokenizer in a folder."""
    write_tokenizer(scripted_tokenizer_files(), folder)
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
    return load_llama_cpp(
        worker_settings(
            model_source=str(file),
            model_tokenizer=tokenizer,
            threads=1,
            max_slots=4,
            context_tokens=context_tokens,
        )
    )


def upstream(
    folder: Path,
    url: str,
    model: str,
    *,
    protocol: UpstreamProtocol = UpstreamProtocol.TOKEN_IDS,
    context_tokens: int | None = 128,
    **settings: Any,
) -> LoadedModel:
    """A model of a server that uses the scripted engine's tokenizer; room for 4 sequences."""
    values = {
        "model_source": url,
        "upstream_model": model,
        "model_tokenizer": scripted_tokenizer(folder / "tokenizer"),
        "upstream_speaks": protocol.value,
        "max_slots": 4,
        "context_tokens": context_tokens,
    }
    return load_openai(WorkerSettings.model_validate(values | settings))

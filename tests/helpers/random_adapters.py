"""Random adapters as peft writes them, and peft's own model with one merged into its weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel


def write_adapter(folder: Path, model: PreTrainedModel, *, number: int, **config: Any) -> Path:
    """Write a random adapter of this model into `folder`; equal for equal numbers.

    The model's layers are wrapped for it, and unwrapped again. Both matrices are random, and
    large enough that no text stays as it was.
    """
    chosen: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
        **config,
    }
    with torch.random.fork_rng(), _what_peft_warns_of_unheard():
        torch.manual_seed(number)
        wrapped = get_peft_model(cast(Any, model), LoraConfig(**chosen))
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.15)
        wrapped.save_pretrained(str(folder))
        cast(Any, wrapped).unload()
    return folder


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model, with the adapter's changes added to its weights by peft."""
    with _what_peft_warns_of_unheard():
        wrapped = cast(Any, PeftModel.from_pretrained(cast(Any, model), str(folder)))
        plain: PreTrainedModel = wrapped.merge_and_unload()
    return plain


@contextmanager
def _what_peft_warns_of_unheard() -> Iterator[None]:
    """It calls what transformers deprecates, and says what it guesses about a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

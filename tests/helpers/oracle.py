"""A random model with a chat template, and what transformers' own `generate` says by it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import headrace_worker
from helpers.tiny_models import random_model

CONTEXT = 512
_TOKENIZER = Path(headrace_worker.__file__).parent / "default_model"
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class Asked:
    """One greedy request; `path` is the API that it is sent to."""

    path: str
    prompt: str
    """Of the user; of `completions` and `native_prompt` the whole prompt."""
    max_tokens: int
    stream: bool = False
    system: str = ""
    tools: tuple[str, ...] = ()
    """Names of functions that are offered."""
    stop: str = ""


@dataclass(frozen=True)
class Answer:
    text: str
    finish: str
    """"length" or "stop"."""
    prompt_tokens: int
    completion_tokens: int
    token_ids: tuple[int, ...] | None = field(default=None, compare=False)
    """None where the API has none."""


class Oracle:
    """The model alone, in float32, one prompt at a time."""

    def __init__(self, folder: Path) -> None:
        """Write model and tokenizer to `folder`, for a mesh to serve."""
        folder.mkdir(parents=True)
        for name in _FILES:
            shutil.copyfile(_TOKENIZER / name, folder / name)
        self.folder = folder
        self._model.save_pretrained(folder)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(self.folder))

    @cached_property
    def _model(self) -> PreTrainedModel:
        return random_model(
            "llama",
            vocab_size=2048,
            num_hidden_layers=3,
            max_position_embeddings=CONTEXT,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )

    def prompt_ids(self, asked: Asked) -> list[int]:
        tokenizer: Any = self.tokenizer
        if asked.path in ("completions", "native_prompt"):
            ids: list[int] = tokenizer(asked.prompt)["input_ids"]
            return ids
        system = [{"role": "system", "content": asked.system}] if asked.system else []
        text = tokenizer.apply_chat_template(
            [*system, {"role": "user", "content": asked.prompt}],
            tools=[function(name) for name in asked.tools] or None,
            tokenize=False,
            add_generation_prompt=True,
        )
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def answer(self, asked: Asked) -> Answer:
        """What the mesh has to answer."""
        prompt = self.prompt_ids(asked)
        model: Any = self._model
        given = torch.tensor([prompt])
        output = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=asked.max_tokens,
            do_sample=False,
        )
        made: list[int] = output[0, len(prompt) :].tolist()
        finish = "stop" if made[-1] == model.config.eos_token_id else "length"
        text = self._text(made)
        if asked.stop and asked.stop in text:
            count = next(n for n in range(len(made)) if asked.stop in self._text(made[: n + 1])) + 1
            made, finish = made[:count], "stop"
            text = text.split(asked.stop)[0]
        return Answer(text, finish, len(prompt), len(made), tuple(made))

    def _text(self, ids: list[int]) -> str:
        tokenizer: Any = self.tokenizer
        return str(tokenizer.decode(ids, skip_special_tokens=True))


def function(name: str) -> dict[str, Any]:
    """A function as chat takes it."""
    schema = {"type": "object", "properties": {"place": {"type": "string"}}}
    described = {"name": name, "description": f"Calls {name}.", "parameters": schema}
    return {"type": "function", "function": described}

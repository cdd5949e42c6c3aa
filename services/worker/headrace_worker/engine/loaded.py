"""What loading a model yields, whichever engine runs it. Imports nothing that computes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from headrace_worker.engine.interface import Engine


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """All that turns text into a model's token ids and back, away from its weights."""

    tokenizer_json: bytes
    """A `tokenizers` file, as `Tokenizer.from_str` reads it."""
    chat_template: str | None
    """Jinja, as transformers renders it; absent where the model is no chat model."""
    special_tokens: dict[str, str]
    """By role (`bos_token`, `eos_token`, ...), for the chat template."""
    eos_token_ids: tuple[int, ...]

    def write_to(self, folder: Path) -> None:
        """Leave the files where transformers' `AutoTokenizer` finds them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_bytes(self.tokenizer_json)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special_tokens}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), "utf-8")
        if self.chat_template is not None:
            (folder / "chat_template.jinja").write_text(self.chat_template, "utf-8")


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The model's own wishes, for callers who say nothing; None where it has none."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine ready to admit, and what others must know of its model."""

    engine: Engine
    tokenizer: TokenizerFiles
    generation_defaults: GenerationDefaults
    parameters: int
    """Weights, counted; 0 where there are none."""


class ModelLoadFailed(Exception):
    """A model cannot be served; the text says which one and why."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"model {source} cannot be loaded: {reason}")
        self.source, self.reason = source, reason

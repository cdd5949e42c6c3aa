"""What loading a model yields, whichever engine runs it. Imports nothing that computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

from headrace_worker.engine.base.interface import AdapterEngine, Engine, PrefixEngine


class LoadStage(Enum):
    """What a load does, in this order, and what it counts meanwhile."""

    FETCHING = "fetching files"
    """From the hub; not where they are here already."""
    READING = "reading weights"
    """Once through, for their digest."""
    PLACING = "placing weights"
    """Each tensor in its place, in the type that it is computed in."""

    @property
    def unit(self) -> str:
        return "tensors" if self is LoadStage.PLACING else "bytes"


Progress = Callable[[LoadStage, int, int], None]
"""Called with what is done and what there is in all, 0 if that is not known yet; by any thread."""


def unheard(stage: LoadStage, done: int, total: int) -> None:
    """The progress of a load that nobody waits for."""


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


class VectorTask(StrEnum):
    EMBED = "embed"
    """A vector of a text."""
    SCORE = "score"
    """A number for a query and a document."""


@dataclass(frozen=True, slots=True)
class VectorModel:
    """What is to be known of a model that makes vectors, beside its weights."""

    task: VectorTask
    dimensions: int
    """1 for a score."""
    normalised: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    """By name: what it wants before a text of that kind."""
    default_prompt: str | None = None
    """Name of the one for texts whose kind is not said."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine ready to admit, and what others must know of its model."""

    engine: Engine
    tokenizer: TokenizerFiles
    generation_defaults: Mapping[str, Any]
    """The model's own values of sampling parameters, by name, for callers that set none."""
    parameters: int
    """Weights, counted; 0 where there are none."""
    adapters: AdapterEngine | None = None
    """The engine, if it was asked to take adapters."""
    prefixes: PrefixEngine | None = None
    """The engine, if it keeps what texts begin with."""
    vectors: VectorModel | None = None
    """None: the engine makes tokens."""


class ModelLoadFailed(Exception):
    """A model cannot be served; the text says which one and why."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"model {source} cannot be loaded: {reason}")
        self.source, self.reason = source, reason


def refuse_other_shapes(source: str, mismatched: Iterable[tuple[str, Any, Any]]) -> None:
    """Raise ModelLoadFailed for weights that are not of the shape that config.json gives them.

    `mismatched`: name, shape as stored and as expected, as transformers reports them.
    """
    for name, stored, expected in sorted(mismatched):
        fact = f"{name} is of {tuple(stored)} and config.json means {tuple(expected)}"
        raise ModelLoadFailed(source, f"its weights do not fit its config.json: {fact}")


class ModelOutOfReach(ModelLoadFailed):
    """Where it really runs does not answer now; to start again later may help."""


class PackageMissing(ModelLoadFailed):
    """An engine of another project that is not installed."""

    def __init__(self, source: str, *, engine: str, package: str) -> None:
        super().__init__(
            source,
            f"engine {engine} needs the package {package}, which is not installed here:"
            f" pip install 'headrace[{engine}]'",
        )

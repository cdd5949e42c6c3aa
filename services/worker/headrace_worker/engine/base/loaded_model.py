"""The result of loading a model, for any engine. This module imports nothing that computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from headrace_worker.engine.base.interface import AdapterStore, Engine


class LoadStage(Enum):
    """The stages of a load, in order, and what each counts."""

    FETCHING = "fetching files"
    """From the hub; not if the files are local."""
    READING = "reading weights"
    """Once, for the digest of the weights."""
    PLACING = "placing weights"
    """Each tensor in the type that it is computed in."""

    @property
    def unit(self) -> str:
        return "tensors" if self is LoadStage.PLACING else "bytes"


Progress = Callable[[LoadStage, int, int], None]
"""Called from any thread with what is done and the total, 0 if that is unknown yet."""


CachedBlocks = Callable[[], list[bytes]]
"""Returns the hashes of all cached blocks, as `headrace.prefixes` makes them; a prefix comes before
what follows it. Called from the engine's thread."""


def ignore_progress(stage: LoadStage, done: int, total: int) -> None:
    """Ignore the progress of a load."""


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """All that turns text into a model's token ids and back, without its weights."""

    tokenizer_json: bytes
    """A `tokenizers` file, as `Tokenizer.from_str` reads it."""
    chat_template: str | None
    """Jinja, as transformers renders it; None if the model is no chat model."""
    special_tokens: dict[str, str]
    """By role (`bos_token`, `eos_token`, ...), for the chat template."""
    eos_token_ids: tuple[int, ...]


class VectorTask(StrEnum):
    EMBED = "embed"
    """A vector of a text."""
    SCORE = "score"
    """A number for a query and a document."""
    CLASSIFY = "classify"
    """A logit for each label of a text."""


@dataclass(frozen=True, slots=True)
class VectorModel:
    """Facts about a model that makes vectors, beside its weights."""

    task: VectorTask
    dimensions: int
    """1 for a score, as many as labels for logits."""
    normalised: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    """By name: the text that the model expects before a text of that kind."""
    default_prompt: str | None = None
    """Name of the prompt for texts whose kind is not given."""
    labels: tuple[str, ...] = ()
    """Of logits, by index."""
    multi_label: bool = False
    """Several labels may apply to one text."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine ready to admit, and what others must know of its model."""

    engine: Engine
    tokenizer: TokenizerFiles
    generation_defaults: Mapping[str, Any]
    """The model's own values of sampling parameters, by name, for callers that set none."""
    parameters: int
    """Number of weights; 0 if unknown."""
    adapters: AdapterStore | None = None
    """Those of the engine, if it takes any."""
    cached_blocks: CachedBlocks | None = None
    """None: the engine has no prefix cache."""
    vectors: VectorModel | None = None
    """None: the engine makes tokens."""


class LoadFailed(Exception):
    """A model cannot be served; the text says why, and `load_model` adds which one."""


class ModelLoadFailed(LoadFailed):
    """A model cannot be served; the text says which one and why."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"model {source} cannot be loaded: {reason}")
        self.source, self.reason = source, reason


class ModelUnreachable(ModelLoadFailed):
    """The remote server does not answer now; a later start may succeed."""


class PackageMissing(ModelLoadFailed):
    """The package of an engine is not installed."""

    def __init__(self, source: str, *, engine: str, package: str) -> None:
        super().__init__(
            source,
            f"engine {engine} needs the package {package}, which is not installed here:"
            f" pip install 'headrace[{engine}]'",
        )

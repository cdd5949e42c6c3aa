"""Read sentence-transformers' files: how a model makes vectors.

Without them, embeddings are the mean over tokens and scores pass through a sigmoid, as in
sentence-transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from headrace_worker.engine.base.loaded_model import LoadFailed, VectorTask

_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""In the order in which sentence-transformers concatenates several."""
_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")


@dataclass(frozen=True, slots=True)
class Layer:
    """A module after pooling."""

    kind: str
    """`Dense` or `Normalize`."""
    folder: Path
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SentenceConfig:
    """A model's pooling, modules after it, and prompts."""

    modes: tuple[str, ...] = ("mean",)
    """Pooling modes, concatenated."""
    layers: tuple[Layer, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_tokens: int | None = None
    """Length at which training truncated texts."""
    lower_case: bool = False
    """Texts are lowercased before the tokenizer."""
    activation: str | None = None
    """Of scores: the path of a class of torch."""


def vector_task(folder: Path) -> VectorTask | None:
    """Return what a folder's model makes; None: tokens, or unknown.

    A pooling module in modules.json means EMBED. Without one, the architecture decides:
    "...ForSequenceClassification" SCORE with one label and CLASSIFY with several, "...Model" EMBED,
    except those with a language-model head ("GPT2LMHeadModel").
    """
    if any(_kind(module) == "Pooling" for module in _modules(folder)):
        return VectorTask.EMBED
    config = _read(folder / "config.json")
    name, *_ = config.get("architectures") or [""]
    if name.endswith("ForSequenceClassification"):
        # transformers writes id2label wherever there are not two labels, which is its default.
        labels = config.get("id2label") or range(config.get("num_labels", 2))
        return VectorTask.SCORE if len(labels) == 1 else VectorTask.CLASSIFY
    is_bare = name.endswith("Model") and not name.endswith(("HeadModel", "HeadsModel"))
    return VectorTask.EMBED if is_bare else None


def read_sentence_config(folder: Path) -> SentenceConfig:
    """Read the configuration.

    Raises:
        LoadFailed: a module or pooling mode is not supported.
    """
    modes: tuple[str, ...] = ("mean",)
    layers = []
    for module in _modules(folder):
        kind, place = _kind(module), folder / str(module.get("path", ""))
        if kind == "Transformer":
            if place != folder:
                raise LoadFailed(f"its transformer is in {place.name}/, not on top")
        elif kind == "Pooling":
            modes = _modes(_read(place / "config.json"))
        elif kind in ("Dense", "Normalize"):
            layers.append(Layer(kind, place, _read(place / "config.json")))
        else:
            raise LoadFailed(f"module {kind} of its modules.json is not served")
    own, cut = _read(folder / _FILES[1]), _read(folder / _FILES[2])
    prompts = {name: text for name, text in (own.get("prompts") or {}).items() if text}
    return SentenceConfig(
        modes=modes,
        layers=tuple(layers),
        prompts=prompts,
        default_prompt=own.get("default_prompt_name") or None,
        max_tokens=cut.get("max_seq_length"),
        lower_case=bool(cut.get("do_lower_case")),
        activation=_activation(own, _read(folder / "config.json")),
    )


def vectors_digest(folder: Path, weights_digest: str) -> str:
    """Return a digest, equal for equal weights, configuration and modules."""
    digest = sha256(weights_digest.encode())
    for name in _FILES:
        fields = _read_any(folder / name)
        if isinstance(fields, dict):
            fields.pop("__version__", None)
        digest.update(json.dumps(fields, sort_keys=True).encode())
    for module in _modules(folder):
        path = str(module.get("path", ""))
        for file in sorted((folder / path).glob("*")) if path else ():
            digest.update(f"{path}/{file.name}".encode())
            digest.update(file.read_bytes())
    return f"{weights_digest.partition(':')[0]}:{digest.hexdigest()}"


def _modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    if not config.get("include_prompt", True):
        raise LoadFailed("it pools without its prompt (include_prompt), not served")
    given = config.get("pooling_mode")
    if given is None:
        given = [mode for name, mode in _LEGACY_MODES.items() if config.get(name)] or "mean"
    modes = (given,) if isinstance(given, str) else tuple(given)
    strays = [mode for mode in modes if mode not in _LEGACY_MODES.values()]
    if strays:
        raise LoadFailed(f"pooling by {strays[0]} is not served")
    return modes


def _activation(own: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Return the setting from where sentence-transformers keeps it, newest place first."""
    nested = config.get("sentence_transformers") or {}
    older = config.get("sbert_ce_default_activation_function")
    return nested.get("activation_fn") or older or own.get("activation_fn")


def _kind(module: Mapping[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _modules(folder: Path) -> list[Mapping[str, Any]]:
    modules = _read_any(folder / "modules.json")
    return modules if isinstance(modules, list) else []


def _read(file: Path) -> dict[str, Any]:
    fields = _read_any(file)
    return fields if isinstance(fields, dict) else {}


def _read_any(file: Path) -> Any:
    """Return the JSON of a file; None if it is absent or invalid."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None

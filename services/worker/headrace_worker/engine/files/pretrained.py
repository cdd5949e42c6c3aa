"""Load configuration and weights from a folder, for models that generate and for encoders alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from headrace_worker.base.machine import this_machine
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base import defaults
from headrace_worker.engine.base.defaults import ChosenValue
from headrace_worker.engine.base.loaded_model import LoadFailed
from headrace_worker.engine.files.tokenizer_files import UNREADABLE, first_line


def choose_threads(settings: WorkerSettings, parameters: int) -> ChosenValue:
    """Choose the threads of the forward pass for a model with so many parameters."""
    return defaults.threads(
        settings.threads,
        cores=this_machine().cores,
        workers=settings.workers_here,
        parameters=parameters,
    )


def read_config(folder: Path) -> PreTrainedConfig:
    """Read config.json.

    Raises:
        LoadFailed: transformers cannot read it.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except UNREADABLE as error:
        raise LoadFailed(f"its config.json: {first_line(error)}") from error
    return config


def read_weights(
    folder: Path, auto_class: Any, *, optional: str = "-", **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Load the weights into a model of `auto_class`.

    Returns the model, and the names of tensors that it has no use for, sorted. Tensors whose
    names begin with `optional` may be missing. `options` go to `from_pretrained`.

    Raises:
        LoadFailed: the weights cannot be read, or do not fit the configuration.
    """
    try:
        model, report = auto_class.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            # Why: otherwise transformers raises, and names the tensors in its own log only.
            ignore_mismatched_sizes=True,
            **options,
        )
    except (*UNREADABLE, SafetensorError, RuntimeError, MemoryError) as error:
        raise LoadFailed(f"its weights: {first_line(error)}") from error
    # Why: transformers would go on with random numbers in place of missing tensors.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(optional))
    if missing:
        raise LoadFailed(f"its weights lack {len(missing)} tensors, {missing[0]} first")
    for name, stored, expected in sorted(report["mismatched_keys"]):
        fact = f"{name} is of {tuple(stored)} and config.json means {tuple(expected)}"
        raise LoadFailed(f"its weights do not fit its config.json: {fact}")
    return cast(PreTrainedModel, model), sorted(report["unexpected_keys"])

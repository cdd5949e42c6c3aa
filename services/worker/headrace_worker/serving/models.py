"""From settings to a loaded model, whichever engine runs it.

Engines are imported where they are chosen: torch takes a second, and others need
packages that are not there.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.scripted import load_scripted
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    LoadFailed,
    ModelLoadFailed,
    Progress,
    VectorTask,
    ignore_progress,
)

log = logging.getLogger(__name__)

DEFAULT_MODEL = Path(__file__).parents[1] / "default_model"
SHIPPED_NAME = "valley"
"""A source of this name is the model that ships, unless a folder has it."""


def is_follower(settings: WorkerSettings) -> bool:
    """Return whether this process only has a part of a model that another one serves.

    Raises:
        ModelLoadFailed: it was to have a part, and torchrun did not start it.
    """
    if not settings.tensor_parallel:
        return False
    if (
        settings.engine != "transformers"
        or settings.adapters_dir
        or settings.quantization != "none"
    ):
        fact = "tensor_parallel takes transformers models alone, no adapters and no quantization"
        raise ModelLoadFailed(settings.model_source, fact)
    if find_spec("accelerate") is None:
        fact = "tensor_parallel needs the package accelerate, which is not installed here"
        raise ModelLoadFailed(settings.model_source, f"{fact}: pip install accelerate")
    from headrace_worker.engine.model.tensor_parallel import join

    try:
        return join() > 0
    except ValueError as error:
        fact = f"tensor_parallel is for processes that torchrun starts: {error}"
        raise ModelLoadFailed(settings.model_source, fact) from error


def follow(settings: WorkerSettings) -> None:
    """Load this process's part and compute with it until the process that serves is gone."""
    engine = load_model(settings).engine
    from headrace_worker.engine.core.slot_engine import SlotEngine
    from headrace_worker.engine.model import tensor_parallel

    assert isinstance(engine, SlotEngine)
    tensor_parallel.follow(engine.runner)


def load_model(settings: WorkerSettings, progress: Progress = ignore_progress) -> LoadedModel:
    """Load what the settings name; blocks for as long as that takes.

    `progress` is called with how far it is, from any thread.

    Raises:
        ModelLoadFailed: with the fact.
    """
    try:
        return _load(settings, progress)
    except ModelLoadFailed:
        raise
    except LoadFailed as error:
        raise ModelLoadFailed(settings.model_source, str(error)) from error
    except Exception as error:  # a model's files raise anything, and would again the next time
        log.error("model.load_failed", exc_info=True)
        fact = f"{type(error).__name__}: {error}"
        raise ModelLoadFailed(settings.model_source, fact) from error


def _load(settings: WorkerSettings, progress: Progress) -> LoadedModel:
    if settings.adapters_dir is not None:
        if settings.engine != "transformers":
            raise ModelLoadFailed(settings.engine, "it takes no adapters: unset adapters_dir")
        if not settings.adapters_dir.is_dir():
            raise LoadFailed(f"adapters_dir {settings.adapters_dir} is no folder")
    if settings.quantization != "none" and settings.engine != "transformers":
        fact = f"quantization {settings.quantization} is for the engine transformers; unset it"
        raise ModelLoadFailed(settings.engine, fact)
    source = folder_or_hub_id(settings.model_source)
    match settings.engine:
        case "scripted":
            return load_scripted(settings)
        case "llama-cpp":
            from headrace_worker.engine.backends.llama_cpp import load_llama_cpp

            return load_llama_cpp(settings)
        case "vllm":
            from headrace_worker.engine.backends.vllm import load_vllm

            return load_vllm(settings.model_copy(update={"model_source": source}))
        case "openai":
            from headrace_worker.engine.backends.openai_loader import load_openai

            return load_openai(settings)
        case "transformers":
            return _transformers(settings.model_copy(update={"model_source": source}), progress)


def _transformers(settings: WorkerSettings, progress: Progress) -> LoadedModel:
    # Why: transformers imports torchao where it is installed, which logs every kernel for other
    # hardware that it does not find; and the hub's library logs every request that it sends.
    for noisy in ("torchao", "torch.utils._pytree", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # Why the imports are here: torch takes a second to import, and not every engine needs it.
    if (task := _vector_task(settings, progress)) is None:
        from headrace_worker.engine.loading.loader import load

        return load(settings, progress)
    if settings.adapters_dir is not None:
        raise LoadFailed(f"it is to {task}, without adapters: unset adapters_dir")
    if settings.quantization != "none":
        fact = f"it is to {task}, which quantization {settings.quantization} is not for"
        raise LoadFailed(fact)
    from headrace_worker.engine.encoder.encoder_loader import load_encoder

    return load_encoder(settings, task, progress)


def folder_or_hub_id(source: str, *, here: Path = Path()) -> str:
    """Return the source as engines take it.

    The model that ships has names of its own; a folder named "valley" in the folder `here` comes
    before that name.
    """
    is_shipped = source == "default" or (source == SHIPPED_NAME and not (here / source).is_dir())
    return str(DEFAULT_MODEL) if is_shipped else source


def _vector_task(settings: WorkerSettings, progress: Progress) -> VectorTask | None:
    """Return what the model makes, if it makes vectors."""
    if settings.task == "generate":
        return None
    if settings.task != "auto":
        return VectorTask(settings.task)
    from headrace_worker.engine.files.sentence_config import vector_task
    from headrace_worker.engine.files.sources import model_folder

    return vector_task(model_folder(settings.model_source, settings.model_revision, progress))

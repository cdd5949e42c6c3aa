"""From settings to a loaded model, whichever engine runs it.

Engines are imported where they are chosen: torch takes a second, and others need
packages that are not there.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.scripted import ScriptedFaults, ScriptedSettings, load_scripted
from headrace_worker.engine.base.loaded import (
    LoadedModel,
    ModelLoadFailed,
    Progress,
    VectorTask,
    unheard,
)

log = logging.getLogger(__name__)

DEFAULT_MODEL = Path(__file__).parents[1] / "default_model"
SHIPPED_NAME = "valley"
"""A source of this name is the model that ships, unless a folder has it."""
SCRIPTED_SLOTS = 256


def is_follower(settings: WorkerSettings) -> bool:
    """Whether this process only has a part of a model that another one serves.

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
    from headrace_worker.engine.model.parallel import join

    try:
        return join() > 0
    except ValueError as error:
        fact = f"tensor_parallel is for processes that torchrun starts: {error}"
        raise ModelLoadFailed(settings.model_source, fact) from error


def follow(settings: WorkerSettings) -> None:
    """Load this process's part and compute with it until the process that serves is gone."""
    engine = load_model(settings).engine
    from headrace_worker.engine.core.slot_engine import SlotEngine
    from headrace_worker.engine.model import parallel

    assert isinstance(engine, SlotEngine)
    parallel.follow(engine.forward)


def load_model(settings: WorkerSettings, progress: Progress = unheard) -> LoadedModel:
    """Load what the settings name; blocks for as long as that takes.

    `progress` hears how far it is, from any thread.

    Raises:
        ModelLoadFailed: with the fact.
    """
    try:
        return _load(settings, progress)
    except ModelLoadFailed:
        raise
    except Exception as error:  # a model's files raise anything, and would again the next time
        log.error("model.load_failed", exc_info=True)
        fact = f"{type(error).__name__}: {error}"
        raise ModelLoadFailed(settings.model_source, fact) from error


def _load(settings: WorkerSettings, progress: Progress) -> LoadedModel:
    if settings.adapters_dir is not None:
        if settings.engine != "transformers":
            raise ModelLoadFailed(settings.engine, "it takes no adapters: unset adapters_dir")
        if not settings.adapters_dir.is_dir():
            fact = f"adapters_dir {settings.adapters_dir} is no folder"
            raise ModelLoadFailed(settings.model_source, fact)
    if settings.quantization != "none" and settings.engine != "transformers":
        fact = f"quantization {settings.quantization} is for the engine transformers; unset it"
        raise ModelLoadFailed(settings.engine, fact)
    match settings.engine:
        case "scripted":
            return load_scripted(
                ScriptedSettings(
                    step_s=settings.scripted_step_s,
                    max_slots=settings.max_slots or SCRIPTED_SLOTS,
                    context_tokens=settings.context_tokens or ScriptedSettings().context_tokens,
                    faults=ScriptedFaults(
                        fail_prompts_containing=settings.scripted_fail_token,
                        crash_prompts_containing=settings.scripted_crash_token,
                    ),
                )
            )
        case "llama-cpp":
            return _llama_cpp(settings)
        case "vllm":
            return _vllm(settings)
        case "openai":
            return _openai(settings)
        case "transformers":
            return _transformers(settings, progress)


def _transformers(settings: WorkerSettings, progress: Progress) -> LoadedModel:
    # Why: transformers imports torchao where it is installed, which tells of every kernel for
    # other hardware that it does not find; and the hub's library of every request it makes.
    for noisy in ("torchao", "torch.utils._pytree", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    source = folder_or_hub_id(settings.model_source)
    if (task := _vector_task(source, settings, progress)) is not None:
        if settings.adapters_dir is not None:
            raise ModelLoadFailed(source, f"it is to {task}, without adapters: unset adapters_dir")
        return _load_encoder(source, task, settings, progress)
    # Why here: torch takes a second to import, and not every engine needs it.
    from headrace_worker.engine.loading.loading import load
    from headrace_worker.engine.lora.adapters import AdapterBounds

    bounds = AdapterBounds(settings.max_adapters, settings.max_adapter_rank)
    return load(
        source,
        revision=settings.model_revision,
        dtype=settings.dtype,
        quantization=settings.quantization,
        threads=settings.threads,
        max_slots=settings.max_slots,
        context_tokens=settings.context_tokens,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
        prefix_cache=settings.prefix_cache,
        device=settings.device,
        kv_store=settings.kv_store,
        memory_utilization=settings.memory_utilization,
        cache_tokens=settings.cache_tokens,
        grammar_backend=settings.grammar_backend,
        adapters=bounds if settings.adapters_dir is not None else None,
        workers=settings.workers_here,
        progress=progress,
    )


def _llama_cpp(settings: WorkerSettings) -> LoadedModel:
    from headrace_worker.engine.backends.llama_cpp import LlamaCppSettings, load_llama_cpp

    return load_llama_cpp(
        LlamaCppSettings(
            settings.model_source,
            settings.model_tokenizer,
            settings.threads,
            settings.max_slots,
            settings.context_tokens,
            settings.dtype,
        )
    )


def _vllm(settings: WorkerSettings) -> LoadedModel:
    from headrace_worker.engine.backends.vllm import VllmSettings, load_vllm

    return load_vllm(
        VllmSettings(
            folder_or_hub_id(settings.model_source),
            settings.model_revision,
            settings.dtype,
            settings.max_slots,
            settings.context_tokens,
            prefix_cache=settings.prefix_cache,
        )
    )


def _openai(settings: WorkerSettings) -> LoadedModel:
    from headrace_worker.engine.backends.openai_model import OpenAISettings, load_openai
    from headrace_worker.engine.backends.openai_source import Speech
    from headrace_worker.engine.backends.upstream import UpstreamSettings

    upstream = UpstreamSettings(
        settings.model_source,
        _api_key(settings),
        timeout_s=settings.upstream_timeout_s,
        retries=settings.upstream_retries,
        failures=settings.upstream_failures,
        pause_s=settings.upstream_pause_s,
    )
    return load_openai(
        OpenAISettings(
            upstream,
            settings.upstream_model or settings.model_name,
            settings.model_tokenizer,
            Speech(settings.upstream_speaks),
            settings.max_slots,
            settings.context_tokens,
        )
    )


def folder_or_hub_id(source: str, *, here: Path = Path()) -> str:
    """The source as engines take it: the model that ships has names of its own, of which a folder
    of that name, in the folder `here`, goes before "valley"."""
    is_shipped = source == "default" or (source == SHIPPED_NAME and not (here / source).is_dir())
    return str(DEFAULT_MODEL) if is_shipped else source


def _api_key(settings: WorkerSettings) -> SecretStr | None:
    file = settings.upstream_api_key_file
    if file is None:
        return settings.upstream_api_key
    try:
        return SecretStr(file.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = f"upstream_api_key_file {file} cannot be read: {type(error).__name__}"
        raise ModelLoadFailed(settings.model_source, reason) from error


def _vector_task(source: str, settings: WorkerSettings, progress: Progress) -> VectorTask | None:
    """What the model makes, if it is vectors."""
    if settings.task == "generate":
        return None
    if settings.task != "auto":
        return VectorTask(settings.task)
    from headrace_worker.engine.files.sentence_config import vector_task
    from headrace_worker.engine.files.sources import model_folder

    return vector_task(model_folder(source, settings.model_revision, progress))


def _load_encoder(
    source: str, task: VectorTask, settings: WorkerSettings, progress: Progress
) -> LoadedModel:
    if settings.quantization != "none":
        fact = f"it is to {task}, which quantization {settings.quantization} is not for"
        raise ModelLoadFailed(source, fact)
    from headrace_worker.engine.encoder.loading import EncoderSettings, load_encoder

    chosen = EncoderSettings(
        max_slots=settings.max_slots,
        context_tokens=settings.context_tokens,
        pass_tokens=settings.encoder_pass_tokens,
        dtype=settings.dtype,
        threads=settings.threads,
        workers=settings.workers_here,
    )
    revision = settings.model_revision
    return load_encoder(source, task, chosen, revision=revision, progress=progress)

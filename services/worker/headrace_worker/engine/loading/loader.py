"""Load a transformers model and give it an engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar, set_tqdm_hook

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base import defaults
from headrace_worker.engine.base.defaults import ChosenValue
from headrace_worker.engine.base.interface import EngineFacts
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    LoadFailed,
    LoadStage,
    Progress,
    ignore_progress,
)
from headrace_worker.engine.base.precision import Precision, quantize_to_int8, require_available
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.files.generation_config import (
    configured_end_tokens,
    generation_defaults,
    warn_of_unknown_turn_ends,
)
from headrace_worker.engine.files.pretrained import choose_threads, read_config, read_weights
from headrace_worker.engine.files.rope import rope_choice
from headrace_worker.engine.files.sources import model_folder, weights_digest
from headrace_worker.engine.files.tokenizer_files import UNREADABLE, first_line, tokenizer_files
from headrace_worker.engine.gpu.devices import select_device
from headrace_worker.engine.grammar.backends import compiler_for
from headrace_worker.engine.loading.builder import CacheTooSmall, EngineBuilder
from headrace_worker.engine.loading.selfcheck import CheckFailed
from headrace_worker.engine.model.tensor_parallel import is_joined, sharding

log = logging.getLogger(__name__)


def load(settings: WorkerSettings, progress: Progress = ignore_progress) -> LoadedModel:
    """Load `model_source`, a folder or a hub id, and build its engine; run no code of the model's.

    `threads` is set for the whole process; where it or `prefill_chunk_tokens` is unset,
    `defaults` chooses.

    Raises:
        LoadFailed: with the reason.
    """
    source = settings.model_source
    precision = Precision(settings.dtype, settings.quantization)
    device = select_device(settings.device)
    if device is None:
        raise LoadFailed("device cuda is requested, and torch finds no GPU")
    require_available(precision, on_gpu=device.type != "cpu")
    disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    folder = model_folder(source, settings.model_revision, progress)
    config = _config(folder)
    _require_generation_config(folder)
    digest = weights_digest(folder, precision.name, progress)
    with _reporting_tensors(progress):
        model = _model(folder, config, precision)
    if not is_joined():
        cast(Any, model).to(device)
    chosen = _choose(model, settings)
    torch.set_num_threads(chosen["threads"].value)
    end_token_ids = configured_end_tokens(model.generation_config, model.config)
    tokenizer = tokenizer_files(source, folder, end_token_ids)
    warn_of_unknown_turn_ends(tokenizer)
    vocabulary_size = model.config.get_text_config().vocab_size
    compiler = compiler_for(settings.grammar_backend, tokenizer, vocabulary_size)
    chunk_tokens = chosen["prefill_chunk_tokens"].value
    settings_here = settings.model_copy(update={"prefill_chunk_tokens": chunk_tokens})
    engine = _build(EngineBuilder(model, settings_here, tokenizer.eos_token_ids, digest, compiler))
    _log_choice(chosen, model.config, engine.facts, settings.max_slots)
    return LoadedModel(
        engine,
        tokenizer,
        generation_defaults(model.generation_config),
        model.num_parameters(),
        adapters=engine.adapters if settings.adapters_dir is not None else None,
        cached_blocks=engine.cached_blocks if engine.runner.supports_prefix_caching else None,
    )


def _build(builder: EngineBuilder) -> SlotEngine:
    try:
        return builder.build()
    except CheckFailed as error:
        reason = f"{type(builder.model).__name__} comes out wrong in every engine"
        raise LoadFailed(f"{reason}: {error}") from error
    except (CacheTooSmall, MemoryError) as error:
        raise LoadFailed(f"its cache does not fit: {error}") from error


def _choose(model: PreTrainedModel, settings: WorkerSettings) -> dict[str, ChosenValue]:
    parameters = model.num_parameters()
    threads = choose_threads(settings, parameters)
    requested = settings.prefill_chunk_tokens
    chunk = defaults.chunk_tokens(requested, threads=threads.value, parameters=parameters)
    if requested is None and model.device.type != "cpu":
        chunk = ChosenValue(defaults.GPU_CHUNK_TOKENS, "on a GPU")
    return {"threads": threads, "prefill_chunk_tokens": chunk}


def _log_choice(
    chosen: dict[str, ChosenValue],
    config: PreTrainedConfig,
    facts: EngineFacts,
    max_slots: int | None,
) -> None:
    """Log once what the engine runs with and why: the first question about its speed."""
    values: dict[str, object] = {name: each.value for name, each in chosen.items()}
    reasons = {f"{name}_why": each.reason for name, each in chosen.items()}
    slots = {"max_slots": facts.max_slots, "context_tokens": facts.context_tokens}
    slots_why = "set" if facts.max_slots == max_slots else defaults.SLOTS_WHY
    how = {"engine": facts.name, "precision": facts.dtype, "max_slots_why": slots_why}
    choice = rope_choice(config.get_text_config(), facts.context_tokens)
    rope = {} if choice is None else {"frequencies": choice.reason}
    log.info("engine.chosen", extra=values | slots | how | reasons | rope)


@contextmanager
def _reporting_tensors(progress: Progress) -> Iterator[None]:
    """Report how many tensors transformers has placed, by its progress bar."""

    def hook(bar: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments and named.get("desc") == "Loading weights":
            return _counted(arguments[0], progress)
        return bar(*arguments, **named)

    previous = set_tqdm_hook(hook)
    try:
        yield
    finally:
        set_tqdm_hook(previous)


def _counted(tensors: Iterable[Any], progress: Progress) -> Iterator[Any]:
    waiting = list(tensors)
    for done, tensor in enumerate(waiting, start=1):
        yield tensor
        progress(LoadStage.PLACING, done, len(waiting))


def _config(folder: Path) -> PreTrainedConfig:
    config = read_config(folder)
    name = (config.architectures or [config.model_type])[0]
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or (
        config.architectures and name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    ):
        raise LoadFailed(f"{name} is not a causal language model")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < 1:
        raise LoadFailed(f"its config.json: max_position_embeddings is {positions}")
    return config


def _require_generation_config(folder: Path) -> None:
    """Raise LoadFailed if generation_config.json has values that transformers refuses.

    Why: transformers reads it again with the weights, and its error would be reported as theirs.
    """
    try:
        GenerationConfig.from_pretrained(folder)
    except OSError:
        return  # The file is absent or no JSON: transformers goes on without it.
    except UNREADABLE as error:
        raise LoadFailed(f"its generation_config.json: {first_line(error)}") from error


def _model(folder: Path, config: PreTrainedConfig, precision: Precision) -> PreTrainedModel:
    model, unused = read_weights(
        folder,
        AutoModelForCausalLM,
        config=config,
        dtype=precision.torch_dtype,
        attn_implementation="eager",
        **sharding(config),
    )
    if unused:
        # Why not refused: many models bring heads for training or for drafting along.
        log.warning("model.weights_unused", extra={"count": len(unused), "first": unused[0]})
    if precision.quantization == "int8":
        quantize_to_int8(model)
    return model

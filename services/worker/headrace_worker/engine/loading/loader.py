"""Load a transformers model and give it an engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar, set_tqdm_hook

from headrace_worker.base.machine import this_machine
from headrace_worker.engine.base import defaults
from headrace_worker.engine.base.defaults import ChosenValue
from headrace_worker.engine.base.interface import EngineFacts
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    LoadStage,
    ModelLoadFailed,
    Progress,
    TokenizerFiles,
    ignore_progress,
    refuse_mismatched_shapes,
)
from headrace_worker.engine.base.precision import (
    Precision,
    PrecisionUnavailable,
    quantize_to_int8,
    require_available_here,
)
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.files.generation_config import (
    configured_end_tokens,
    generation_defaults,
    warn_of_unknown_turn_ends,
)
from headrace_worker.engine.files.rope import rope_choice
from headrace_worker.engine.files.sources import model_folder, weights_digest
from headrace_worker.engine.files.tokenizer_files import UNREADABLE, first_line, tokenizer_files
from headrace_worker.engine.gpu.devices import select_device
from headrace_worker.engine.grammar.backends import BackendMissing, compiler_for
from headrace_worker.engine.grammar.compiler import CompileFunction
from headrace_worker.engine.loading.builder import (
    CacheTooSmall,
    EngineContext,
    EngineSettings,
    build,
)
from headrace_worker.engine.loading.selfcheck import CheckFailed
from headrace_worker.engine.lora.adapters import AdapterBounds
from headrace_worker.engine.model.tensor_parallel import is_joined, sharding

log = logging.getLogger(__name__)


def load(
    source: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    quantization: str = "none",
    threads: int | None = None,
    max_slots: int | None = None,
    context_tokens: int | None = None,
    prefill_chunk_tokens: int | None = None,
    prefix_cache: bool = True,
    device: str = "auto",
    kv_store: str = "auto",
    memory_utilization: float | None = None,
    cache_tokens: int | None = None,
    grammar_backend: str = "xgrammar",
    adapters: AdapterBounds | None = None,
    workers: int = 1,
    progress: Progress = ignore_progress,
) -> LoadedModel:
    """Load a folder or a hub id; no code of the model's own is run.

    `threads` is for the whole process; where it or `prefill_chunk_tokens` is None,
    `defaults` chooses for one of `workers` on this machine. The rest is told in
    `EngineSettings`.

    Raises:
        ModelLoadFailed: with the reason.
    """
    precision = Precision(dtype, quantization)
    on_device = _device_for(source, precision, device)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    folder = model_folder(source, revision, progress)
    config = _config(source, folder)
    _try_generation_config(source, folder)
    digest = weights_digest(folder, precision.name, progress)
    with _reporting_tensors(progress):
        model = _model(source, folder, config, precision)
    if not is_joined():
        cast(Any, model).to(on_device)
    parameters = model.num_parameters()
    chosen = _choose(model, threads, prefill_chunk_tokens, workers)
    torch.set_num_threads(chosen["threads"].value)
    ends = configured_end_tokens(model.generation_config, model.config)
    tokenizer = tokenizer_files(source, folder, ends)
    warn_of_unknown_turn_ends(tokenizer)
    settings = EngineSettings(
        max_slots,
        context_tokens,
        chosen["prefill_chunk_tokens"].value,
        prefix_cache=prefix_cache,
        kv_store=kv_store,
        memory_utilization=memory_utilization,
        cache_tokens=cache_tokens,
        adapters=adapters or AdapterBounds(),
    )
    origin = EngineContext(
        tokenizer.eos_token_ids,
        digest,
        _compiler(source, grammar_backend, tokenizer, model),
        quantization=quantization,
    )
    engine = _build(source, model, settings, origin)
    _log_choice(chosen, model.config, engine.facts, max_slots)
    return LoadedModel(
        engine,
        tokenizer,
        generation_defaults(model.generation_config),
        parameters,
        adapters=engine if adapters is not None else None,
        prefixes=engine if engine.runner.supports_prefix_caching else None,
    )


def _device_for(source: str, precision: Precision, wanted: str) -> torch.device:
    device = select_device(wanted)
    if device is None:
        raise ModelLoadFailed(source, "device cuda is asked for, and torch finds no GPU")
    try:
        require_available_here(precision, on_gpu=device.type != "cpu")
    except PrecisionUnavailable as error:
        raise ModelLoadFailed(source, str(error)) from error
    return device


def _compiler(
    source: str, backend: str, tokenizer: TokenizerFiles, model: PreTrainedModel
) -> CompileFunction | None:
    try:
        return compiler_for(backend, tokenizer, model.config.get_text_config().vocab_size)
    except BackendMissing as error:
        raise ModelLoadFailed(source, str(error)) from error


def _build(
    source: str, model: PreTrainedModel, settings: EngineSettings, origin: EngineContext
) -> SlotEngine:
    try:
        return build(model, settings, origin)
    except CheckFailed as error:
        reason = f"{type(model).__name__} comes out wrong in every engine"
        raise ModelLoadFailed(source, f"{reason}: {error}") from error
    except (CacheTooSmall, MemoryError) as error:
        raise ModelLoadFailed(source, f"its cache does not fit: {error}") from error


def _choose(
    model: PreTrainedModel, threads: int | None, chunk_tokens: int | None, workers: int
) -> dict[str, ChosenValue]:
    cores, parameters = this_machine().cores, model.num_parameters()
    of_pass = defaults.threads(threads, cores=cores, workers=workers, parameters=parameters)
    of_step = defaults.chunk_tokens(chunk_tokens, threads=of_pass.value, parameters=parameters)
    if chunk_tokens is None and model.device.type != "cpu":
        of_step = ChosenValue(defaults.GPU_CHUNK_TOKENS, "on a GPU")
    return {"threads": of_pass, "prefill_chunk_tokens": of_step}


def _log_choice(
    chosen: dict[str, ChosenValue],
    config: PreTrainedConfig,
    facts: EngineFacts,
    max_slots: int | None,
) -> None:
    """What the engine runs with and why, once: the first question about its speed."""
    values: dict[str, object] = {name: each.value for name, each in chosen.items()}
    whys = {f"{name}_why": each.reason for name, each in chosen.items()}
    slots = {"max_slots": facts.max_slots, "context_tokens": facts.context_tokens}
    slots_why = "set" if facts.max_slots == max_slots else defaults.SLOTS_WHY
    how = {"engine": facts.name, "precision": facts.dtype, "max_slots_why": slots_why}
    choice = rope_choice(config.get_text_config(), facts.context_tokens)
    rope = {} if choice is None else {"frequencies": choice.reason}
    log.info("engine.chosen", extra=values | slots | how | whys | rope)


@contextmanager
def _reporting_tensors(progress: Progress) -> Iterator[None]:
    """Hear from transformers how many tensors it has placed."""

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


def _config(source: str, folder: Path) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except UNREADABLE as error:
        raise ModelLoadFailed(source, f"its config.json: {first_line(error)}") from error
    name = (config.architectures or [config.model_type])[0]
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or (
        config.architectures and name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    ):
        raise ModelLoadFailed(source, f"{name} is not a causal language model")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < 1:
        raise ModelLoadFailed(source, f"its config.json: max_position_embeddings is {positions}")
    return config


def _try_generation_config(source: str, folder: Path) -> None:
    """Why: reading the weights reads it as well, and what it raises would be told of these."""
    try:
        GenerationConfig.from_pretrained(folder)
    except OSError:
        return  # There is none, or it is no JSON: transformers goes on without.
    except UNREADABLE as error:
        fact = f"its generation_config.json: {first_line(error)}"
        raise ModelLoadFailed(source, fact) from error


def _model(
    source: str, folder: Path, config: PreTrainedConfig, precision: Precision
) -> PreTrainedModel:
    try:
        # Any, for transformers types only what comes back without the report.
        model, report = cast(Any, AutoModelForCausalLM).from_pretrained(
            folder,
            config=config,
            dtype=precision.torch_dtype,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # theirs raises, and says which ones in its log alone
            **sharding(config),
        )
    except (*UNREADABLE, SafetensorError, RuntimeError, MemoryError) as error:
        raise ModelLoadFailed(source, f"its weights: {first_line(error)}") from error
    absent = sorted(report["missing_keys"])
    if absent:
        # Why: transformers would go on with random numbers in their place.
        raise ModelLoadFailed(source, f"its weights lack {len(absent)} tensors, {absent[0]} first")
    refuse_mismatched_shapes(source, report["mismatched_keys"])
    if unused := sorted(report["unexpected_keys"]):
        # Why not refused: many models bring heads for training or for drafting along.
        log.warning("model.weights_unused", extra={"count": len(unused), "first": unused[0]})
    if precision.quantization == "int8":
        try:
            quantize_to_int8(model)
        except PrecisionUnavailable as error:
            raise ModelLoadFailed(source, str(error)) from error
    return cast(PreTrainedModel, model)

"""Load a transformers model and give it an engine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar

from headrace_worker.engine.building import CacheTooSmall, EngineSettings, Origin, build
from headrace_worker.engine.loaded import (
    GenerationDefaults,
    LoadedModel,
    ModelLoadFailed,
    TokenizerFiles,
)
from headrace_worker.engine.selfcheck import Unfit
from headrace_worker.engine.sources import Progress, model_folder, weights_digest

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, ImportError)
"""What transformers raises at files it cannot make sense of."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(
    source: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    threads: int | None = None,
    max_slots: int | None = None,
    context_tokens: int | None = None,
    prefill_chunk_tokens: int = 128,
    prefix_cache: bool = True,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load a folder or a hub id; no code of the model's own is run.

    `threads` is for the whole process; None takes half of the cores. On a machine
    that others use too, 1 is often fastest. `progress` hears of the bytes read.
    The rest is told in `EngineSettings`.

    Raises:
        ModelLoadFailed: with the reason.
    """
    if dtype not in _DTYPES:
        raise ModelLoadFailed(source, f"dtype {dtype} is none of {', '.join(_DTYPES)}")
    disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // 2))
    folder = model_folder(source, revision)
    config = _config(source, folder)
    digest = weights_digest(folder, progress)
    model = _model(source, folder, config, _DTYPES[dtype])
    tokenizer = _tokenizer_files(source, folder, _eos_token_ids(model))
    try:
        engine = build(
            model,
            EngineSettings(
                max_slots, context_tokens, prefill_chunk_tokens, prefix_cache=prefix_cache
            ),
            Origin(tokenizer.eos_token_ids, digest),
        )
    except Unfit as error:
        reason = f"{type(model).__name__} comes out wrong in every engine"
        raise ModelLoadFailed(source, f"{reason}: {error}") from error
    except (CacheTooSmall, MemoryError) as error:
        raise ModelLoadFailed(source, f"its cache does not fit: {error}") from error
    return LoadedModel(engine, tokenizer, _generation_defaults(model), model.num_parameters())


def _config(source: str, folder: Path) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except _UNREADABLE as error:
        raise ModelLoadFailed(source, f"its config.json: {_first_line(error)}") from error
    name = (config.architectures or [config.model_type])[0]
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or (
        config.architectures and name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    ):
        raise ModelLoadFailed(source, f"{name} is not a causal language model")
    return config


def _model(
    source: str, folder: Path, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    try:
        # Any, for transformers types only what comes back without the report.
        model, report = cast(Any, AutoModelForCausalLM).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (*_UNREADABLE, SafetensorError, RuntimeError, MemoryError) as error:
        raise ModelLoadFailed(source, f"its weights: {_first_line(error)}") from error
    absent = sorted(report["missing_keys"])
    if absent:
        # Why: transformers would go on with random numbers in their place.
        raise ModelLoadFailed(source, f"its weights lack {len(absent)} tensors, {absent[0]} first")
    return cast(PreTrainedModel, model)


def _tokenizer_files(source: str, folder: Path, eos_token_ids: tuple[int, ...]) -> TokenizerFiles:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except _UNREADABLE as error:
        raise ModelLoadFailed(source, f"its tokenizer: {_first_line(error)}") from error
    if len(tokenizer) == 0:
        # transformers makes an empty one where there are no files.
        raise ModelLoadFailed(source, "its folder has no tokenizer (no tokenizer.json)")
    with tempfile.TemporaryDirectory() as made:
        tokenizer.save_pretrained(made)
        saved = Path(made) / "tokenizer.json"
        if not saved.is_file():
            raise ModelLoadFailed(source, "its tokenizer has no tokenizer.json form")
        tokenizer_json = saved.read_bytes()
    templates = tokenizer.chat_template
    return TokenizerFiles(
        tokenizer_json,
        templates.get("default") if isinstance(templates, dict) else templates,
        {
            role: text
            for role, text in tokenizer.special_tokens_map.items()
            if isinstance(text, str)
        },
        eos_token_ids or (() if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)),
    )


def _eos_token_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """The generation configuration's, else the model's own."""
    for config in (model.generation_config, model.config.get_text_config()):
        eos = getattr(config, "eos_token_id", None)
        if eos is not None:
            return tuple(eos) if isinstance(eos, list | tuple) else (int(eos),)
    return ()


def _generation_defaults(model: PreTrainedModel) -> GenerationDefaults:
    config = model.generation_config
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    found = {name: getattr(config, name, None) for name in names}
    if config.do_sample is False:
        # Said outright: transformers, too, would then be greedy whatever the temperature.
        found["temperature"] = 0.0
    return GenerationDefaults(**found)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]

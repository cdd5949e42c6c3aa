"""Load a model that makes vectors, with its head, and give it an engine."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from headrace_worker.base.machine import this_machine
from headrace_worker.engine.base import defaults
from headrace_worker.engine.base.interface import EngineFacts
from headrace_worker.engine.base.loaded import (
    LoadedModel,
    ModelLoadFailed,
    Progress,
    TokenizerFiles,
    VectorModel,
    VectorTask,
    refuse_other_shapes,
    unheard,
)
from headrace_worker.engine.base.precision import (
    Precision,
    PrecisionUnavailable,
    require_available_here,
)
from headrace_worker.engine.base.products import with_laid_out
from headrace_worker.engine.encoder.encoder import EncoderEngine
from headrace_worker.engine.encoder.forward import EncoderForward, Unvectorable
from headrace_worker.engine.encoder.inputs import Company
from headrace_worker.engine.encoder.pooling import Normalise, ScoreHead, TextHead
from headrace_worker.engine.files.rope import fix_frequencies, rope_choice
from headrace_worker.engine.files.sentence_config import (
    Layer,
    SentenceConfig,
    read_sentence_config,
    vectors_digest,
)
from headrace_worker.engine.files.sources import model_folder, weights_digest
from headrace_worker.engine.files.tokenizer_files import UNREADABLE, first_line, tokenizer_files

log = logging.getLogger(__name__)

_MAX_SLOTS = 256
_CONTEXT_TOKENS = 4096
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: getattr(nn, name) for name in ("Identity", "Tanh", "Sigmoid", "ReLU", "GELU")
}


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    max_slots: int | None = None
    """Inputs held at once; None: 256. They wait as token ids, and cost next to nothing."""
    context_tokens: int | None = None
    """None: the model's own, at most 4096."""
    pass_tokens: int = 1024
    """Of one forward pass, padding included."""
    dtype: str = "float32"
    threads: int | None = None
    """Of the whole process; None: as `defaults` chooses for one of `workers` on this machine."""
    workers: int = 1


def load_encoder(
    source: str,
    task: VectorTask,
    settings: EncoderSettings,
    *,
    revision: str | None = None,
    progress: Progress = unheard,
) -> LoadedModel:
    """Load a folder or a hub id; no code of the model's own is run.

    Raises:
        ModelLoadFailed: with the reason.
    """
    precision = Precision(settings.dtype)
    try:
        require_available_here(precision, on_gpu=False)
    except PrecisionUnavailable as error:
        raise ModelLoadFailed(source, str(error)) from error
    disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    folder = model_folder(source, revision, progress)
    sentence = read_sentence_config(source, folder)
    model = _model(source, folder, task, _config(source, folder, task), settings.dtype)
    parameters = model.num_parameters()
    torch.set_num_threads(_threads(parameters, settings))
    files = _lowered(tokenizer_files(source, folder, ()), sentence)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    forward = EncoderForward(
        model,
        _head(source, task, sentence),
        output="logits" if task is VectorTask.SCORE else "last_hidden_state",
        pad_token_id=_pad_token_id(model),
        has_types="token_type_ids" in tokenizer.model_input_names,
    )
    wanted = settings.context_tokens or _CONTEXT_TOKENS
    # Where it was never set, a tokenizer's length is 10^30.
    bounds = (_positions(model), int(tokenizer.model_max_length), sentence.max_tokens or wanted)
    context_tokens = min(wanted, *bounds)
    fix_frequencies(model, context_tokens)
    digest = vectors_digest(folder, weights_digest(folder, precision.name, progress))
    if (choice := rope_choice(model.config.get_text_config(), context_tokens)) is not None:
        digest = choice.digest(digest)
        log.info("engine.chosen", extra={"engine": "encoder", "frequencies": choice.why})
    try:
        engine, dimensions = with_laid_out(
            model,
            lambda: _engine(forward, model, context_tokens, settings, digest),
            Unvectorable,
        )
    except Unvectorable as error:
        fact = f"{type(model).__name__} makes no vectors: {error}"
        raise ModelLoadFailed(source, fact) from error
    vectors = _vectors(task, dimensions, sentence)
    return LoadedModel(engine, files, {}, parameters, vectors=vectors)


def _threads(parameters: int, settings: EncoderSettings) -> int:
    cores, workers = this_machine().cores, settings.workers
    chosen = defaults.threads(settings.threads, cores=cores, workers=workers, parameters=parameters)
    return chosen.value


def _vectors(task: VectorTask, dimensions: int, sentence: SentenceConfig) -> VectorModel:
    return VectorModel(
        task=task,
        dimensions=dimensions,
        normalised=bool(sentence.layers) and sentence.layers[-1].kind == "Normalize",
        prompts=sentence.prompts,
        default_prompt=sentence.default_prompt,
    )


def _engine(
    forward: EncoderForward,
    model: PreTrainedModel,
    context_tokens: int,
    settings: EncoderSettings,
    digest: str,
) -> tuple[EncoderEngine, int]:
    """The engine, and how many dimensions its vectors have."""
    vocabulary_size = model.config.get_text_config().vocab_size
    company, dimensions = forward.company(vocabulary_size, context_tokens)
    facts = EngineFacts(
        name="encoder",
        dtype=settings.dtype,
        max_slots=settings.max_slots or _MAX_SLOTS,
        context_tokens=context_tokens,
        vocabulary_size=vocabulary_size,
        eos_token_ids=(),
        weights_digest=digest,
        # Computed alone, an input gets the same bits each time.
        batch_invariant=company is Company.ALONE,
        makes_vectors=True,
    )
    engine = EncoderEngine(forward, facts, pass_tokens=settings.pass_tokens, company=company)
    return engine, dimensions


def _config(source: str, folder: Path, task: VectorTask) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except UNREADABLE as error:
        raise ModelLoadFailed(source, f"its config.json: {first_line(error)}") from error
    if config.is_encoder_decoder:
        name = (config.architectures or [config.model_type])[0]
        raise ModelLoadFailed(source, f"{name} has an encoder and a decoder; not served")
    if task is VectorTask.SCORE and config.num_labels != 1:
        raise ModelLoadFailed(
            source, f"it sorts into {config.num_labels} classes; a model with one score is served"
        )
    return config


def _model(
    source: str, folder: Path, task: VectorTask, config: PreTrainedConfig, dtype: str
) -> PreTrainedModel:
    kind: Any = AutoModelForSequenceClassification if task is VectorTask.SCORE else AutoModel
    try:
        model, report = kind.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # theirs raises, and says which ones in its log alone
        )
    except (*UNREADABLE, SafetensorError, RuntimeError, MemoryError) as error:
        raise ModelLoadFailed(source, f"its weights: {first_line(error)}") from error
    # The pooler is one of BERT's heads; what we pool by comes before it.
    absent = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if absent:
        raise ModelLoadFailed(source, f"its weights lack {len(absent)} tensors, {absent[0]} first")
    refuse_other_shapes(source, report["mismatched_keys"])
    if model.config.pad_token_id is None:
        model.config.pad_token_id = _pad_token_id(model)
    model.train(False)
    return cast(PreTrainedModel, model)


def _pad_token_id(model: PreTrainedModel) -> int:
    found = model.config.get_text_config().pad_token_id
    return 0 if found is None else int(found)


def _head(source: str, task: VectorTask, sentence: SentenceConfig) -> nn.Module:
    if task is VectorTask.SCORE:
        return ScoreHead(_activation(source, sentence.activation or "torch.nn.Sigmoid"))
    layers = [_layer(source, layer) for layer in sentence.layers]
    return TextHead(sentence.modes, layers)


def _layer(source: str, layer: Layer) -> nn.Module:
    if layer.kind == "Normalize":
        return Normalise()
    config, file = layer.config, layer.folder / "model.safetensors"
    if not file.is_file():
        raise ModelLoadFailed(source, f"{layer.folder.name}/ has no safetensors weights")
    if config.get("use_residual"):
        raise ModelLoadFailed(source, f"{layer.folder.name}/ has a residual, which is not served")
    linear = nn.Linear(config["in_features"], config["out_features"], config.get("bias", True))
    weights = {name.removeprefix("linear."): each for name, each in load_file(file).items()}
    linear.load_state_dict(weights)
    linear.requires_grad_(False)
    return nn.Sequential(linear, _activation(source, config.get("activation_function", "Tanh")))


def _activation(source: str, path: str) -> nn.Module:
    """Of torch's own, by the last word of its path: nothing else is ever imported."""
    kind = _ACTIVATIONS.get(path.rpartition(".")[2])
    if kind is None:
        raise ModelLoadFailed(source, f"activation {path} is none of {', '.join(_ACTIVATIONS)}")
    return kind()


def _lowered(files: TokenizerFiles, sentence: SentenceConfig) -> TokenizerFiles:
    if not sentence.lower_case:
        return files
    tokenizer = Tokenizer.from_str(files.tokenizer_json.decode())
    own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return replace(files, tokenizer_json=tokenizer.to_str().encode())


def _positions(model: PreTrainedModel) -> int:
    """Positions that text may have: RoBERTa and its kin number theirs from behind the padding's."""
    for name, module in model.named_modules():
        is_table = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        if is_table and module.padding_idx is not None:
            return int(module.num_embeddings - module.padding_idx - 1)
    configured = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return _CONTEXT_TOKENS if configured is None else int(configured)

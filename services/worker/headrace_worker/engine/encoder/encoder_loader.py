"""Load a model that makes vectors (embeddings or scores), with its head, and build its engine."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import EngineFacts
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    LoadFailed,
    Progress,
    TokenizerFiles,
    VectorModel,
    VectorTask,
    ignore_progress,
)
from headrace_worker.engine.base.precision import Precision, require_available
from headrace_worker.engine.base.prepacked_linear import with_prepacked_weights
from headrace_worker.engine.encoder.batching import BatchMode
from headrace_worker.engine.encoder.encoder_engine import EncoderEngine
from headrace_worker.engine.encoder.encoder_runner import EncoderCheckFailed, EncoderModelRunner
from headrace_worker.engine.encoder.pooling import Normalize, ScoreHead, TextHead
from headrace_worker.engine.files.pretrained import choose_threads, read_config, read_weights
from headrace_worker.engine.files.rope import fix_frequencies, rope_choice
from headrace_worker.engine.files.sentence_config import (
    Layer,
    SentenceConfig,
    read_sentence_config,
    vectors_digest,
)
from headrace_worker.engine.files.sources import model_folder, weights_digest
from headrace_worker.engine.files.tokenizer_files import tokenizer_files

log = logging.getLogger(__name__)

_MAX_SLOTS = 256
_CONTEXT_TOKENS = 4096
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: getattr(nn, name) for name in ("Identity", "Tanh", "Sigmoid", "ReLU", "GELU")
}


def load_encoder(
    settings: WorkerSettings, task: VectorTask, progress: Progress = ignore_progress
) -> LoadedModel:
    """Load `model_source`, a folder or a hub id, for a task; run no code of the model's own.

    Raises:
        LoadFailed: with the reason.
    """
    source, precision = settings.model_source, Precision(settings.dtype)
    require_available(precision, on_gpu=False)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    folder = model_folder(source, settings.model_revision, progress)
    sentence = read_sentence_config(folder)
    model = _model(folder, task, precision)
    parameters = model.num_parameters()
    torch.set_num_threads(choose_threads(settings, parameters).value)
    files = _lowercased(tokenizer_files(source, folder, ()), sentence)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    runner = EncoderModelRunner(
        model,
        _head(task, sentence),
        output="last_hidden_state" if task is VectorTask.EMBED else "logits",
        pad_token_id=_pad_token_id(model),
        has_token_types="token_type_ids" in tokenizer.model_input_names,
    )
    requested = settings.context_tokens or _CONTEXT_TOKENS
    # A tokenizer whose length was never set has 10^30.
    bounds = (_positions(model), int(tokenizer.model_max_length), sentence.max_tokens or requested)
    context_tokens = min(requested, *bounds)
    fix_frequencies(model, context_tokens)
    digest = vectors_digest(folder, weights_digest(folder, precision.name, progress))
    if (choice := rope_choice(model.config.get_text_config(), context_tokens)) is not None:
        digest = choice.digest(digest)
        log.info("engine.chosen", extra={"engine": "encoder", "frequencies": choice.reason})
    try:
        engine, dimensions = with_prepacked_weights(
            model,
            lambda: _engine(runner, context_tokens, settings, digest),
            EncoderCheckFailed,
        )
    except EncoderCheckFailed as error:
        raise LoadFailed(f"{type(model).__name__} makes no vectors: {error}") from error
    vectors = VectorModel(
        task=task,
        dimensions=dimensions,
        normalised=bool(sentence.layers) and sentence.layers[-1].kind == "Normalize",
        prompts=sentence.prompts,
        default_prompt=sentence.default_prompt,
        **(_labels(model) if task is VectorTask.CLASSIFY else {}),
    )
    return LoadedModel(engine, files, {}, parameters, vectors=vectors)


def _engine(
    runner: EncoderModelRunner, context_tokens: int, settings: WorkerSettings, digest: str
) -> tuple[EncoderEngine, int]:
    """Return the engine, and how many dimensions its vectors have."""
    vocabulary_size = runner.model.config.get_text_config().vocab_size
    batch_mode, dimensions = runner.batch_mode(vocabulary_size, context_tokens)
    facts = EngineFacts(
        name="encoder",
        dtype=settings.dtype,
        max_slots=settings.max_slots or _MAX_SLOTS,
        context_tokens=context_tokens,
        vocabulary_size=vocabulary_size,
        eos_token_ids=(),
        weights_digest=digest,
        # Computed alone, an input gets the same bits each time.
        batch_invariant=batch_mode is BatchMode.SINGLE,
        makes_vectors=True,
    )
    batch_tokens = settings.encoder_pass_tokens
    engine = EncoderEngine(runner, facts, batch_tokens=batch_tokens, batch_mode=batch_mode)
    return engine, dimensions


def _model(folder: Path, task: VectorTask, precision: Precision) -> PreTrainedModel:
    config = read_config(folder)
    if config.is_encoder_decoder:
        name = (config.architectures or [config.model_type])[0]
        raise LoadFailed(f"{name} has an encoder and a decoder; not served")
    if task is VectorTask.SCORE and config.num_labels != 1:
        fact = f"it sorts into {config.num_labels} classes; a score is of one. Its task is classify"
        raise LoadFailed(fact)
    kind = AutoModel if task is VectorTask.EMBED else AutoModelForSequenceClassification
    # The pooler is one of BERT's heads; the output that is pooled here comes before it.
    model, _ = read_weights(
        folder, kind, optional="pooler.", config=config, dtype=precision.torch_dtype
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = _pad_token_id(model)
    model.train(False)
    return model


def _pad_token_id(model: PreTrainedModel) -> int:
    found = model.config.get_text_config().pad_token_id
    return 0 if found is None else int(found)


def _labels(model: PreTrainedModel) -> dict[str, Any]:
    config: Any = model.config
    return {
        "labels": tuple(config.id2label[index] for index in range(config.num_labels)),
        "multi_label": config.problem_type == "multi_label_classification",
    }


def _head(task: VectorTask, sentence: SentenceConfig) -> nn.Module:
    if task is VectorTask.CLASSIFY:
        # Gateways make probabilities of the logits, where they are to be probabilities.
        return ScoreHead(nn.Identity())
    if task is VectorTask.SCORE:
        return ScoreHead(_activation(sentence.activation or "torch.nn.Sigmoid"))
    layers = [_layer(layer) for layer in sentence.layers]
    return TextHead(sentence.modes, layers)


def _layer(layer: Layer) -> nn.Module:
    if layer.kind == "Normalize":
        return Normalize()
    config, file = layer.config, layer.folder / "model.safetensors"
    if not file.is_file():
        raise LoadFailed(f"{layer.folder.name}/ has no safetensors weights")
    if config.get("use_residual"):
        raise LoadFailed(f"{layer.folder.name}/ has a residual, which is not served")
    linear = nn.Linear(config["in_features"], config["out_features"], config.get("bias", True))
    weights = {name.removeprefix("linear."): each for name, each in load_file(file).items()}
    linear.load_state_dict(weights)
    linear.requires_grad_(False)
    return nn.Sequential(linear, _activation(config.get("activation_function", "Tanh")))


def _activation(path: str) -> nn.Module:
    """Return the class of torch with the path's last name; nothing else is ever imported."""
    kind = _ACTIVATIONS.get(path.rpartition(".")[2])
    if kind is None:
        raise LoadFailed(f"activation {path} is none of {', '.join(_ACTIVATIONS)}")
    return kind()


def _lowercased(files: TokenizerFiles, sentence: SentenceConfig) -> TokenizerFiles:
    if not sentence.lower_case:
        return files
    tokenizer = Tokenizer.from_str(files.tokenizer_json.decode())
    own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return replace(files, tokenizer_json=tokenizer.to_str().encode())


def _positions(model: PreTrainedModel) -> int:
    """Return the positions of text; RoBERTa and its relatives begin behind the padding index."""
    for name, module in model.named_modules():
        is_table = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        if is_table and module.padding_idx is not None:
            return int(module.num_embeddings - module.padding_idx - 1)
    configured = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return _CONTEXT_TOKENS if configured is None else int(configured)

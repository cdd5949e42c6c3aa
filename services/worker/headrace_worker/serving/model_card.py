"""Builds the model card of a loaded model."""

from __future__ import annotations

import hashlib
import json

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.internal.v1.model_card_pb2 import (
    Capabilities,
    ModelCard,
    SamplingDefaults,
    TokenizerBundle,
    VectorFacts,
)
from headrace.model_names import parse_names
from headrace.output_parsers.detection import reasoning_parser_of, tool_parser_of
from headrace.output_parsers.names import AUTO, NONE
from headrace.sampling import PARAMETERS
from headrace.v1.common_pb2 import ModelTask
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    TokenizerFiles,
    VectorModel,
    VectorTask,
)

_TASKS = {
    VectorTask.EMBED: ModelTask.MODEL_TASK_EMBED,
    VectorTask.SCORE: ModelTask.MODEL_TASK_SCORE,
    VectorTask.CLASSIFY: ModelTask.MODEL_TASK_CLASSIFY,
}


def tokenizer_bundle(files: TokenizerFiles) -> bytes:
    """Return a serialized TokenizerBundle; equal tokenizers give equal bytes."""
    bundle = TokenizerBundle(
        tokenizer_json=files.tokenizer_json,
        chat_template=files.chat_template,
        special_tokens=files.special_tokens,
    )
    return bundle.SerializeToString(deterministic=True)


def configured_card(
    settings: WorkerSettings, loaded: LoadedModel, bundle: bytes, *, now_unix_s: float
) -> ModelCard:
    """Return the card of a loaded model, with what the settings say in place of its files."""
    card = model_card(settings.model_name, loaded, bundle, now_unix_s=now_unix_s)
    card.aliases.extend(parse_names(settings.model_aliases))
    card.configured_by = settings.configured_by
    if settings.tool_parser != AUTO:
        card.tool_parser = settings.tool_parser.removesuffix(NONE)
    if settings.reasoning_parser != AUTO:
        card.reasoning_parser = settings.reasoning_parser.removesuffix(NONE)
    if settings.default_chat_template_kwargs:
        card.chat_template_kwargs.update(json.loads(settings.default_chat_template_kwargs))
    return card


def model_card(name: str, loaded: LoadedModel, bundle: bytes, *, now_unix_s: float) -> ModelCard:
    facts = loaded.engine.facts
    can = facts.capabilities
    created = Timestamp()
    created.FromNanoseconds(int(now_unix_s * 1e9))
    return ModelCard(
        model=name,
        weights_digest=facts.weights_digest,
        tokenizer_digest=hashlib.sha256(bundle).hexdigest(),
        context_tokens=facts.context_tokens,
        vocabulary_size=facts.vocabulary_size,
        eos_token_ids=facts.eos_token_ids,
        dtype=facts.dtype,
        engine=facts.name,
        batch_invariant=facts.batch_invariant,
        max_slots=facts.max_slots,
        capabilities=Capabilities(
            resume=can.resume,
            park=can.park,
            logprobs=can.logprobs,
            grammar=can.grammar,
            token_masks=can.token_masks,
            cache_salt=can.cache_salt,
            lora=loaded.adapters is not None,
            sampling=sorted(n for n in can.sampling if not PARAMETERS[n].everywhere),
        ),
        defaults=SamplingDefaults(**loaded.generation_defaults),
        create_time=created,
        tool_parser=tool_parser_of(loaded.tokenizer.chat_template),
        reasoning_parser=reasoning_parser_of(loaded.tokenizer.chat_template),
        vectors=_vector_facts(loaded.vectors),
    )


def _vector_facts(vectors: VectorModel | None) -> VectorFacts | None:
    if vectors is None:
        return None
    return VectorFacts(
        task=_TASKS[vectors.task],
        dimensions=vectors.dimensions,
        normalised=vectors.normalised,
        prompts=vectors.prompts,
        default_prompt=vectors.default_prompt or "",
        labels=vectors.labels,
        multi_label=vectors.multi_label,
    )

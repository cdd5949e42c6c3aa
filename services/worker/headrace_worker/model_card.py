"""What the mesh must know of a loaded model."""

from __future__ import annotations

import hashlib

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.internal.v1.model_card_pb2 import (
    Capabilities,
    ModelCard,
    SamplingDefaults,
    TokenizerBundle,
)
from headrace_worker.engine.loaded import LoadedModel, TokenizerFiles


def tokenizer_bundle(files: TokenizerFiles) -> bytes:
    """TokenizerBundle, equal bytes for equal tokenizers."""
    bundle = TokenizerBundle(
        tokenizer_json=files.tokenizer_json,
        chat_template=files.chat_template,
        special_tokens=files.special_tokens,
    )
    return bundle.SerializeToString(deterministic=True)


def model_card(name: str, loaded: LoadedModel, bundle: bytes, *, now_unix_s: float) -> ModelCard:
    facts, defaults = loaded.engine.facts, loaded.generation_defaults
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
        capabilities=Capabilities(resume=True, park=True),
        defaults=SamplingDefaults(
            temperature=defaults.temperature,
            top_p=defaults.top_p,
            top_k=defaults.top_k,
            repetition_penalty=defaults.repetition_penalty,
        ),
        create_time=created,
    )

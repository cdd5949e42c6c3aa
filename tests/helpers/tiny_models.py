"""Random models small enough for a test, with margins between tokens that rounding cannot cross."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.prepacked_linear import prepack_linear_layers
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache
from headrace_worker.engine.kvcache.paged_cache import PagedKvCache
from headrace_worker.engine.loading.builder import EngineBuilder

VOCABULARY = 300
EOS = 7
STORES = {"strips": ContiguousKvCache, "pages": PagedKvCache}
"""By the name that settings have for them."""
POISON = 299
"""A token that makes `poisoned` models fail."""

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def random_model(model_type: str, **changes: object) -> PreTrainedModel:
    """A random model of an architecture, its matrices sharpened fourfold; equal on every call."""
    torch.set_num_threads(1)
    config = AutoConfig.for_model(model_type, **{**_SHAPE, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # theirs
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    model.train(False)
    return model


@cache
def tiny_llama() -> PreTrainedModel:
    """The one most tests share, with packed attention; leave it as it is."""
    return random_model("llama")


@cache
def unpacked_llama() -> PreTrainedModel:
    """Its twin, with attention of transformers' own."""
    return random_model("llama")


def poisoned_llama(*, nan: bool = False, error: Exception | None = None) -> PreTrainedModel:
    """Like `tiny_llama`, but a row with token POISON breaks the pass, or turns into NaN."""
    model = random_model("llama")

    def poison(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows = arguments[0] == POISON
        if bool(rows.any()):
            if not nan:
                raise error or RuntimeError("poisoned")
            output = output.masked_fill(rows[..., None], float("nan"))
        return output

    model.get_input_embeddings().register_forward_hook(poison)
    return model


def packed(model: PreTrainedModel, **settings: Any) -> SlotEngine:
    """A packed engine with room for 4 sequences of 128 tokens, chunks of 8, unless told.

    As when a model is loaded, its weights are laid out for it.
    """
    prepack_linear_layers(model)
    return _builder(model, **settings).packed()


def stepwise(model: PreTrainedModel, **settings: Any) -> SlotEngine:
    """The same with one cache per sequence, and weights that a model's own code may read."""
    return _builder(model, **settings).stepwise()


def _builder(
    model: PreTrainedModel,
    *,
    cache_bytes: int | None = None,
    async_scheduling: bool | None = None,
    **settings: Any,
) -> EngineBuilder:
    size = {"max_slots": 4, "context_tokens": 128, "prefill_chunk_tokens": 8}
    small = WorkerSettings.model_validate(size | settings)
    return EngineBuilder(
        model, small, (EOS,), cache_bytes=cache_bytes, async_scheduling=async_scheduling
    )


def generated(model: PreTrainedModel, prompt_ids: tuple[int, ...], max_tokens: int) -> list[int]:
    """What transformers' own greedy `generate` says after a prompt, end-of-sequence ignored.

    Leaves the model with eager attention.
    """
    model.set_attn_implementation("eager")
    prompt = torch.tensor([prompt_ids])
    output = cast(Any, model).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    tokens: list[int] = output[0, len(prompt_ids) :].tolist()
    return tokens

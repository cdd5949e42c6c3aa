"""Whether a model comes out right, packed or stepwise; asked at every load.

No flag of transformers tells: some models that claim to take any attention
function keep state elsewhere, some that do not claim it work. So prompts are run
in chunks beside one that decodes, and every logit is held against the plain model.

Some of the texts stand at the context's end and across the positions at which the model may
change its ways (`switches`), beside short ones: nothing may depend on a pass's longest text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.base.model_runner import Prefill
from headrace_worker.engine.files.length_thresholds import narrowed
from headrace_worker.engine.kvcache.kv_cache import KvStore
from headrace_worker.engine.loading.probe_prompts import (
    NOTHING_DECODES,
    Text,
    Worst,
    origins_of,
    plain_logits,
    row_error,
    trial_texts,
    worst_row,
)
from headrace_worker.engine.model.packed_attention import IMPLEMENTATION
from headrace_worker.engine.model.packed_runner import PackedForward
from headrace_worker.engine.model.stepwise_runner import StepwiseForward

S = TypeVar("S", bound=KvStore)
T = TypeVar("T")

_WIDTH = 6
"""How far layers with a window look back meanwhile: less than the texts are long."""
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Largest error of a row, as a share of the spread of the logits."""
_OWN_ATTENTION = ("sdpa", "eager")
"""Of transformers; eager alone is there for every model."""


class Unfit(Exception):
    """This way of running computes something else than the plain model; the text says what."""


class NotPackable(Unfit):
    """The model needs one cache per sequence."""


class NotSteppable(Unfit):
    """Not even one cache per sequence keeps all that the model remembers."""


@dataclass(frozen=True, slots=True)
class Packing(Generic[S]):
    """How a model runs packed."""

    trial: S
    """The store that it was tried with, for its shape."""
    at_most_tokens: int | None
    """Of a context; beyond, layers that look back so far come out wrong. None: no such bound."""


@dataclass(frozen=True, slots=True)
class Stepping:
    """How a model runs one cache per sequence."""

    chunks_prompts: bool
    fixed_bytes: int = 0
    """What a sequence takes, however short."""
    bytes_per_token: int = 0
    at_most_tokens: int | None = None
    """As `Packing` has it."""

    def slot_bytes(self, tokens: int) -> int:
        return self.fixed_bytes + self.bytes_per_token * tokens


def check_packable(
    model: PreTrainedModel, new_store: Callable[[int, int], S], context_tokens: int | None = None
) -> Packing[S]:
    """Leave the model with packed attention.

    `new_store` makes one for so many slots of so many tokens. Without `context_tokens`
    positions beyond the first few are not tried.

    Raises:
        NotPackable: its logits differ from the plain model's, or it fails.
    """

    def check(bound: int | None) -> S:
        return _check_packable(model, new_store, trial_texts(model, bound))

    trial, at_most_tokens = _across_widths(model, check, context_tokens, NotPackable)
    return Packing(trial, at_most_tokens)


def check_steppable(model: PreTrainedModel, context_tokens: int | None = None) -> Stepping:
    """Leave the model with the faster attention of transformers' own that is right.

    Raises:
        NotSteppable: its logits differ from the plain model's with each, or it fails.
    """

    def check(bound: int | None) -> Stepping:
        return _check_steppable(model, trial_texts(model, bound))

    stepping, at_most_tokens = _across_widths(model, check, context_tokens, NotSteppable)
    return _measured(model, replace(stepping, at_most_tokens=at_most_tokens))


def _across_widths(
    model: PreTrainedModel,
    check: Callable[[int | None], T],
    context_tokens: int | None,
    unfit: type[Unfit],
) -> tuple[T, int | None]:
    """Check the model with narrow windows; where only these come out wrong, say how far it goes."""
    with narrowed(model, _WIDTH) as widths:
        try:
            return check(context_tokens), None
        except unfit:
            if not widths:
                raise
    bound = min(widths[0], context_tokens or widths[0])
    return check(bound), widths[0]


def _check_packable(
    model: PreTrainedModel, new_store: Callable[[int, int], S], texts: list[Text]
) -> S:
    store = new_store(len(texts), max(map(len, texts)))
    try:
        with torch.inference_mode():
            expected = plain_logits(model, texts)
            model.set_attn_implementation(IMPLEMENTATION)
            forward = PackedForward(model, store, origins=origins_of(texts))
            worst = worst_row(forward, texts, expected)
    except Exception as failure:  # a model's own code may raise anything
        raise NotPackable(f"{type(failure).__name__}: {failure}") from failure
    layers = model.config.get_text_config().num_hidden_layers
    if store.layers != layers:
        raise NotPackable(f"{layers - store.layers} of its {layers} layers keep state of their own")
    tolerance = _TOLERANCE[model.dtype]
    if not worst.error <= tolerance:
        raise NotPackable(worst.far_off(tolerance))
    return store


def _check_steppable(model: PreTrainedModel, texts: list[Text]) -> Stepping:
    facts = []
    for implementation in _OWN_ATTENTION:
        try:
            with torch.inference_mode():
                return _try_stepping(model, implementation, texts)
        except NotSteppable as fact:
            facts.append(f"with {implementation} attention {fact}")
        except Exception as failure:  # noqa: BLE001  # a model's own code may raise anything
            facts.append(f"with {implementation} attention {type(failure).__name__}: {failure}")
    raise NotSteppable("; ".join(facts))


def _try_stepping(model: PreTrainedModel, implementation: str, texts: list[Text]) -> Stepping:
    expected = plain_logits(model, texts)
    _require_causal(model, texts, expected[1])
    model.set_attn_implementation(implementation)
    worst = worst_row(_stepwise(model, texts, chunks_prompts=False), texts, expected)
    tolerance = _TOLERANCE[model.dtype]
    if not worst.error <= tolerance:
        raise NotSteppable(worst.far_off(tolerance))
    # Rounding is not what this asks for, so the tolerance of the type would be too kind.
    may_err = max(_TOLERANCE[torch.float32], 2 * worst.error)
    return Stepping(_error_in_chunks(model, texts, expected) <= may_err)


def _require_causal(model: PreTrainedModel, texts: list[Text], expected: Tensor) -> None:
    """A token behind a text changes nothing before it, however far behind it stands.

    Packed, a long neighbour would show that; here only the sequence's own growth can.
    """
    short, last = texts[1], texts[-1]
    if not last.origin:
        return
    far = last.origin + len(last) - 1
    ids = np.append(short.token_ids, last.token_ids[-1:])
    positions = np.append(np.arange(len(short)), far)
    inputs = [torch.from_numpy(each)[None].to(model.device) for each in (ids, positions)]
    logits = model(input_ids=inputs[0], position_ids=inputs[1], use_cache=False).logits[0].float()
    errors = [row_error(logits[place], expected, place) for place in range(len(short))]
    worst = Worst(float(np.max(errors)), int(np.argmax(errors)))
    if not worst.error <= _TOLERANCE[model.dtype]:
        fact = worst.far_off(_TOLERANCE[model.dtype])
        raise NotSteppable(f"with a token at position {far} behind it {fact}")


def _measured(model: PreTrainedModel, stepping: Stepping) -> Stepping:
    """With what a sequence takes, by two of unlike length."""
    forward = StepwiseForward(model, chunks_prompts=False)
    texts = trial_texts(model, None)[:2]
    prefills = [Prefill(n, 0, text.token_ids, completes=True) for n, text in enumerate(texts)]
    with torch.inference_mode():
        forward.run(NOTHING_DECODES, prefills)
    longest, shortest = forward.caches[0], forward.caches[1]
    per_token = (longest.bytes - shortest.bytes) // (longest.length - shortest.length)
    fixed_bytes = longest.bytes - per_token * longest.length
    return replace(stepping, fixed_bytes=fixed_bytes, bytes_per_token=per_token)


def _error_in_chunks(model: PreTrainedModel, texts: list[Text], expected: list[Tensor]) -> float:
    """Infinite where the model does not take a prompt in pieces at all."""
    try:
        return worst_row(_stepwise(model, texts, chunks_prompts=True), texts, expected).error
    except Exception:  # noqa: BLE001  # a model's own code may raise anything
        return float("inf")


def _stepwise(
    model: PreTrainedModel, texts: list[Text], *, chunks_prompts: bool
) -> StepwiseForward:
    return StepwiseForward(model, chunks_prompts=chunks_prompts, origins=origins_of(texts))

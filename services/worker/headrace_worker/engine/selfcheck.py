"""Whether a model comes out right, packed or stepwise; asked at every load.

No flag of transformers tells: some models that claim to take any attention
function keep state elsewhere, some that do not claim it work. So prompts are run
in chunks beside one that decodes, and every logit is held against the plain model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.attention import IMPLEMENTATION
from headrace_worker.engine.forward import Decode, Forward, Prefill
from headrace_worker.engine.kv_store import KvStore
from headrace_worker.engine.packed import PackedForward
from headrace_worker.engine.stepwise import StepwiseForward

Ints = NDArray[np.int64]
S = TypeVar("S", bound=KvStore)

_PROMPT_TOKENS = (7, 5, 9, 12)
"""The first prompt decodes while the others are prefilled."""
_DECODED = 8
"""Tokens fed one by one behind the first prompt."""
_CHUNK = 4
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
class Stepping:
    """How a model runs one cache per sequence."""

    chunks_prompts: bool
    fixed_bytes: int
    """What a sequence takes, however short."""
    bytes_per_token: int

    def slot_bytes(self, tokens: int) -> int:
        return self.fixed_bytes + self.bytes_per_token * tokens


def check_packable(model: PreTrainedModel, new_store: Callable[[int, int], S]) -> S:
    """Leave the model with packed attention; return the trial's store, for its shape.

    `new_store` makes one for so many slots of so many tokens.

    Raises:
        NotPackable: its logits differ from the plain model's, or it fails.
    """
    texts = _texts(model)
    store = new_store(len(texts), max(map(len, texts)))
    try:
        with torch.inference_mode():
            expected = _plain_logits(model, texts)
            model.set_attn_implementation(IMPLEMENTATION)
            error = _largest_error(PackedForward(model, store), texts, expected)
    except Exception as failure:  # a model's own code may raise anything
        raise NotPackable(f"{type(failure).__name__}: {failure}") from failure
    layers = model.config.get_text_config().num_hidden_layers
    if store.layers != layers:
        raise NotPackable(f"{layers - store.layers} of its {layers} layers keep state of their own")
    tolerance = _TOLERANCE[model.dtype]
    if not error <= tolerance:
        raise NotPackable(_far_off(error, tolerance))
    return store


def check_steppable(model: PreTrainedModel) -> Stepping:
    """Leave the model with the faster attention of transformers' own that is right.

    Raises:
        NotSteppable: its logits differ from the plain model's with each, or it fails.
    """
    facts = []
    for implementation in _OWN_ATTENTION:
        try:
            with torch.inference_mode():
                return _try_stepping(model, implementation)
        except NotSteppable as fact:
            facts.append(f"with {implementation} attention {fact}")
        except Exception as failure:  # noqa: BLE001  # a model's own code may raise anything
            facts.append(f"with {implementation} attention {type(failure).__name__}: {failure}")
    raise NotSteppable("; ".join(facts))


def _try_stepping(model: PreTrainedModel, implementation: str) -> Stepping:
    texts = _texts(model)
    expected = _plain_logits(model, texts)
    model.set_attn_implementation(implementation)
    whole = StepwiseForward(model, chunks_prompts=False)
    error = _largest_error(whole, texts, expected)
    tolerance = _TOLERANCE[model.dtype]
    if not error <= tolerance:
        raise NotSteppable(_far_off(error, tolerance))
    # Rounding is not what this asks for, so the tolerance of the type would be too kind.
    may_err = max(_TOLERANCE[torch.float32], 2 * error)
    chunks_prompts = _error_in_chunks(model, texts, expected) <= may_err
    longest, shortest = whole.caches[0], whole.caches[1]
    per_token = (longest.bytes - shortest.bytes) // (longest.length - shortest.length)
    return Stepping(chunks_prompts, longest.bytes - per_token * longest.length, per_token)


def _error_in_chunks(model: PreTrainedModel, texts: list[Ints], expected: list[Tensor]) -> float:
    """Infinite where the model does not take a prompt in pieces at all."""
    try:
        return _largest_error(StepwiseForward(model, chunks_prompts=True), texts, expected)
    except Exception:  # noqa: BLE001  # a model's own code may raise anything
        return float("inf")


def _texts(model: PreTrainedModel) -> list[Ints]:
    vocabulary = model.config.get_text_config().vocab_size
    return [_text(index, vocabulary) for index in range(len(_PROMPT_TOKENS))]


def _text(index: int, vocabulary: int) -> Ints:
    tokens = _PROMPT_TOKENS[index] + (_DECODED if index == 0 else 0)
    return (np.arange(tokens, dtype=np.int64) * 7919 + index * 104729 + 11) % vocabulary


def _plain_logits(model: PreTrainedModel, texts: list[Ints]) -> list[Tensor]:
    """Every position's logits of each text, without any cache."""
    model.set_attn_implementation("eager")
    inputs = [torch.from_numpy(text)[None].to(model.device) for text in texts]
    outputs = [model(input_ids=ids, use_cache=False) for ids in inputs]
    return [cast(Tensor, output.logits)[0].float() for output in outputs]


def _largest_error(forward: Forward, texts: list[Ints], expected: list[Tensor]) -> float:
    """Prefill the first text's prompt, then decode its rest while the others are prefilled."""
    first = _PROMPT_TOKENS[0]
    chunk = _CHUNK if forward.chunks_prompts else max(_PROMPT_TOKENS)
    nothing = np.empty(0, dtype=np.int64)
    none = Decode(nothing, nothing, nothing)
    logits = forward.run(none, [Prefill(0, 0, texts[0][:first], completes=True)])
    errors = [_error(logits[0], expected[0], first - 1)]
    for step in range(_DECODED):
        at = np.array([first + step])
        decode = Decode(np.array([0]), texts[0][at], at)
        prefills = [_piece(slot, texts[slot], step * chunk, chunk) for slot in range(1, len(texts))]
        prefills = [prefill for prefill in prefills if len(prefill.token_ids)]
        logits = forward.run(decode, prefills)
        errors.append(_error(logits[0], expected[0], int(at[0])))
        ended = [prefill.slot for prefill in prefills if prefill.completes]
        for row, slot in enumerate(ended, start=1):
            errors.append(_error(logits[row], expected[slot], len(texts[slot]) - 1))
    # Why not max: it passes over a NaN that is not the first.
    return float(np.max(errors))


def _piece(slot: int, text: Ints, start: int, chunk: int) -> Prefill:
    return Prefill(slot, start, text[start : start + chunk], start + chunk >= len(text))


def _error(logits: Tensor, expected: Tensor, position: int) -> float:
    """The root mean square of the differences over that of the spread.

    Why not the largest difference: in bfloat16 that grows with the vocabulary.
    """
    spread = expected.std().item()
    if not spread > 0:
        raise ValueError("the plain model's logits are all equal or no numbers")
    return (logits - expected[position]).square().mean().sqrt().item() / spread


def _far_off(error: float, tolerance: float) -> str:
    return f"its logits are off by {error:.2g} of their spread, over {tolerance:g}"

"""Check at every load that a model computes the right logits, packed or stepwise.

No flag of transformers shows which models can run packed: some that claim to take any attention
function keep state elsewhere, and some that do not claim it work. So the loader runs probe prompts
both ways and compares every logit with the plain model's.

For a context of 4096 tokens and a model whose configuration names position 2048:

    prompts   four of 15, 5, 9 and 12 tokens at position 0; one of 12 at 2042 to 2053, across the
              threshold; one of 12 at 4084 to 4095, at the end of the context
    expected  the plain model's logits of each prompt, eager attention, without a cache
    step 1    prefill the first 7 tokens of prompt 0
    step 2    decode token 7 of prompt 0; prefill tokens 0 to 3 of all others, in one pass
    ...       until step 9 has decoded token 14 of prompt 0
    error     of each row, root mean square of the difference over the spread of the logits
    verdict   the largest error, 2e-6 at position 2053, is under 1e-4 for float32: it is packed

While this runs, windows of layers are narrowed to 6 tokens, so that short prompts cross them
(`length_thresholds`). If only narrow windows are wrong, the context ends at the window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.base.model_runner import PrefillChunk
from headrace_worker.engine.files.length_thresholds import narrow_windows
from headrace_worker.engine.kvcache.kv_cache import KvCache
from headrace_worker.engine.loading.probe_prompts import (
    NOTHING_DECODES,
    LogitError,
    ProbePrompt,
    largest_error,
    position_offsets,
    probe_prompts,
    reference_logits,
    relative_error,
)
from headrace_worker.engine.model.packed_attention import IMPLEMENTATION
from headrace_worker.engine.model.packed_runner import PackedModelRunner
from headrace_worker.engine.model.stepwise_runner import StepwiseModelRunner

S = TypeVar("S", bound=KvCache)
T = TypeVar("T")

_WIDTH = 6
"""The width of windows during the check: less than the prompts are long."""
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""The largest error of a row, as a share of the spread of the logits."""
_OWN_ATTENTION = ("sdpa", "eager")
"""transformers' own attention implementations; every model has eager."""


class CheckFailed(Exception):
    """This way of running gives other logits than the plain model, or fails; the text says
    which."""


@dataclass(frozen=True, slots=True)
class Checked(Generic[T]):
    """The result of a check that the model has passed."""

    result: T
    max_context_tokens: int | None
    """The longest context with correct windows; None: every context."""


@dataclass(frozen=True, slots=True)
class StepwiseFacts:
    """A model that can run with one cache per sequence."""

    supports_chunked_prefill: bool
    fixed_bytes: int
    """Memory that a sequence takes whatever its length."""
    bytes_per_token: int

    def slot_bytes(self, tokens: int) -> int:
        return self.fixed_bytes + self.bytes_per_token * tokens


def check_packable(
    model: PreTrainedModel, new_store: Callable[[int, int], S], context_tokens: int | None = None
) -> Checked[S]:
    """Check that the model can run packed, and leave it with packed attention.

    `new_store` makes a cache for a number of slots and tokens. Without `context_tokens` only the
    first few positions are checked. Returns the cache that the check used: its layers have the
    shapes of the model.

    Raises:
        CheckFailed: its logits differ from the plain model's, or it fails.
    """
    return _check_with_narrow_windows(
        model, lambda prompts: _check_packable(model, new_store, prompts), context_tokens
    )


def check_steppable(
    model: PreTrainedModel, context_tokens: int | None = None
) -> Checked[StepwiseFacts]:
    """Check the model with one cache per sequence, and leave it with the fastest attention that is
    right.

    Raises:
        CheckFailed: its logits differ from the plain model's with every attention, or it fails.
    """
    checked = _check_with_narrow_windows(
        model, lambda prompts: _check_steppable(model, prompts), context_tokens
    )
    return Checked(_measured(model, checked.result), checked.max_context_tokens)


def _check_with_narrow_windows(
    model: PreTrainedModel,
    check: Callable[[list[ProbePrompt]], T],
    context_tokens: int | None,
) -> Checked[T]:
    """Check with narrow windows; if only these are wrong, bound the context by the window."""
    with narrow_windows(model, _WIDTH) as widths:
        try:
            return Checked(check(probe_prompts(model, context_tokens)), None)
        except CheckFailed:
            if not widths:
                raise
    bound = min(widths[0], context_tokens or widths[0])
    return Checked(check(probe_prompts(model, bound)), widths[0])


def _check_packable(
    model: PreTrainedModel, new_store: Callable[[int, int], S], prompts: list[ProbePrompt]
) -> S:
    store = new_store(len(prompts), max(map(len, prompts)))
    try:
        with torch.inference_mode():
            expected = reference_logits(model, prompts)
            model.set_attn_implementation(IMPLEMENTATION)
            forward = PackedModelRunner(model, store, position_offsets=position_offsets(prompts))
            error = largest_error(forward, prompts, expected)
    except Exception as failure:  # a model's own code may raise anything
        raise CheckFailed(f"{type(failure).__name__}: {failure}") from failure
    layers = model.config.get_text_config().num_hidden_layers
    if store.layers != layers:
        raise CheckFailed(f"{layers - store.layers} of its {layers} layers keep state of their own")
    _require_small(error, model)
    return store


def _require_small(error: LogitError, model: PreTrainedModel, where: str = "") -> None:
    tolerance = _TOLERANCE[model.dtype]
    if not error.error <= tolerance:
        raise CheckFailed(where + error.describe(tolerance))


def _check_steppable(model: PreTrainedModel, prompts: list[ProbePrompt]) -> bool:
    """Check each attention in turn; return whether the first right one supports chunked prefill."""
    facts = []
    for implementation in _OWN_ATTENTION:
        try:
            with torch.inference_mode():
                return _try_stepping(model, implementation, prompts)
        except CheckFailed as fact:
            facts.append(f"with {implementation} attention {fact}")
        except Exception as failure:  # noqa: BLE001  # a model's own code may raise anything
            facts.append(f"with {implementation} attention {type(failure).__name__}: {failure}")
    raise CheckFailed("; ".join(facts))


def _try_stepping(model: PreTrainedModel, implementation: str, prompts: list[ProbePrompt]) -> bool:
    expected = reference_logits(model, prompts)
    _require_causal(model, prompts, expected[1])
    model.set_attn_implementation(implementation)
    whole, in_chunks = (
        StepwiseModelRunner(
            model,
            supports_chunked_prefill=supports_chunked_prefill,
            position_offsets=position_offsets(prompts),
        )
        for supports_chunked_prefill in (False, True)
    )
    error = largest_error(whole, prompts, expected)
    _require_small(error, model)
    # This is not a matter of rounding, so the tolerance of the type would be too large.
    may_err = max(_TOLERANCE[torch.float32], 2 * error.error)
    try:
        return largest_error(in_chunks, prompts, expected).error <= may_err
    except Exception:  # noqa: BLE001  # a model's own code may raise anything
        return False


def _require_causal(model: PreTrainedModel, prompts: list[ProbePrompt], expected: Tensor) -> None:
    """Raise CheckFailed if a token changes logits before it, however far behind it stands.

    Packed, a long neighbour would show this; stepwise, only the growth of the sequence itself can.
    """
    short, last = prompts[1], prompts[-1]
    if not last.first_position:
        return
    far = last.first_position + len(last) - 1
    ids = np.append(short.token_ids, last.token_ids[-1:])
    positions = np.append(np.arange(len(short)), far)
    inputs = [torch.from_numpy(each)[None].to(model.device) for each in (ids, positions)]
    logits = model(input_ids=inputs[0], position_ids=inputs[1], use_cache=False).logits[0].float()
    errors = [relative_error(logits[place], expected, place) for place in range(len(short))]
    error = LogitError(float(np.max(errors)), int(np.argmax(errors)))
    _require_small(error, model, f"with a token at position {far} behind it ")


def _measured(model: PreTrainedModel, supports_chunked_prefill: bool) -> StepwiseFacts:
    """Return the facts with the memory of a sequence, measured by two of different length."""
    forward = StepwiseModelRunner(model, supports_chunked_prefill=False)
    prompts = probe_prompts(model, None)[:2]
    prefills = [
        PrefillChunk(n, 0, prompt.token_ids, is_last_chunk=True) for n, prompt in enumerate(prompts)
    ]
    with torch.inference_mode():
        forward.run(NOTHING_DECODES, prefills)
    longest, shortest = forward.caches[0], forward.caches[1]
    per_token = (longest.bytes - shortest.bytes) // (longest.length - shortest.length)
    fixed_bytes = longest.bytes - per_token * longest.length
    return StepwiseFacts(supports_chunked_prefill, fixed_bytes, per_token)

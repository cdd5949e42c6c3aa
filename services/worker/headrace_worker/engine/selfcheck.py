"""Whether a model comes out right through the packed path; asked at every load.

No flag of transformers tells: some models that claim to take any attention
function keep state elsewhere, some that do not claim it work. So prompts are run
in chunks beside one that decodes, and every logit is held against the plain model.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.attention import IMPLEMENTATION
from headrace_worker.engine.forward import Decode, PackedForward, Prefill
from headrace_worker.engine.kv_strips import KvStrips

Ints = NDArray[np.int64]

_PROMPT_TOKENS = (7, 5, 9, 12)
"""The first prompt decodes while the others are prefilled."""
_DECODED = 8
"""Tokens fed one by one behind the first prompt."""
_CHUNK = 4
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest error of a row, as a share of the spread of the logits."""


class NotPackable(Exception):
    """The packed path computes something else than the plain model; the text says how far off."""


def check_packable(model: PreTrainedModel) -> KvStrips:
    """Leave the model with packed attention; return the trial's strips, for their shape.

    Raises:
        NotPackable: its logits differ from the plain model's, or it fails.
    """
    vocabulary = model.config.get_text_config().vocab_size
    texts = [_text(index, vocabulary) for index in range(len(_PROMPT_TOKENS))]
    try:
        with torch.inference_mode():
            model.set_attn_implementation("eager")
            expected = [_plain_logits(model, text) for text in texts]
            model.set_attn_implementation(IMPLEMENTATION)
            strips = KvStrips(len(texts), max(map(len, texts)))
            error = _largest_error(PackedForward(model, strips), texts, expected)
    except Exception as failure:  # a model's own code may raise anything
        raise NotPackable(f"{type(failure).__name__}: {failure}") from failure
    layers = model.config.get_text_config().num_hidden_layers
    if strips.layers != layers:
        raise NotPackable(
            f"{layers - strips.layers} of its {layers} layers keep state of their own"
        )
    tolerance = _TOLERANCE[model.dtype]
    if not error <= tolerance:
        raise NotPackable(f"its logits are off by {error:.2g} of their spread, over {tolerance:g}")
    return strips


def _text(index: int, vocabulary: int) -> Ints:
    tokens = _PROMPT_TOKENS[index] + (_DECODED if index == 0 else 0)
    return (np.arange(tokens, dtype=np.int64) * 7919 + index * 104729 + 11) % vocabulary


def _plain_logits(model: PreTrainedModel, text: Ints) -> Tensor:
    output = model(input_ids=torch.from_numpy(text)[None], use_cache=False)
    return cast(Tensor, output.logits)[0].float()


def _largest_error(forward: PackedForward, texts: list[Ints], expected: list[Tensor]) -> float:
    """Prefill the first text's prompt, then decode its rest while the others are prefilled."""
    first = _PROMPT_TOKENS[0]
    nothing = np.empty(0, dtype=np.int64)
    none = Decode(nothing, nothing, nothing)
    logits = forward.run(none, [Prefill(0, 0, texts[0][:first], completes=True)])
    errors = [_error(logits[0], expected[0], first - 1)]
    for step in range(_DECODED):
        at = np.array([first + step])
        decode = Decode(np.array([0]), texts[0][at], at)
        prefills = [_chunk(slot, texts[slot], step * _CHUNK) for slot in range(1, len(texts))]
        prefills = [prefill for prefill in prefills if len(prefill.token_ids)]
        logits = forward.run(decode, prefills)
        errors.append(_error(logits[0], expected[0], int(at[0])))
        ended = [prefill.slot for prefill in prefills if prefill.completes]
        for row, slot in enumerate(ended, start=1):
            errors.append(_error(logits[row], expected[slot], len(texts[slot]) - 1))
    return max(errors)


def _chunk(slot: int, text: Ints, start: int) -> Prefill:
    return Prefill(slot, start, text[start : start + _CHUNK], start + _CHUNK >= len(text))


def _error(logits: Tensor, expected: Tensor, position: int) -> float:
    """The root mean square of the differences over that of the spread.

    Why not the largest difference: in bfloat16 that grows with the vocabulary.
    """
    spread = expected.std().item()
    if not spread > 0:
        raise ValueError("the plain model's logits are all equal or no numbers")
    return (logits - expected[position]).square().mean().sqrt().item() / spread

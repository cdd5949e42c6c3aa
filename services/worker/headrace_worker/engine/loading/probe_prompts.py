"""Probe prompts for the check at load, the logits expected of them, and the error of a runner.

probe_prompts(model, 4096)      [0..14] at 0, [0..4] at 0, [0..8] at 0, [0..11] at 0,
                                12 tokens at 4084                    (no threshold is named)
reference_logits(...)           five tensors of (tokens, vocabulary)
largest_error(runner, ...)      prefills 7 tokens of prompt 0, then in each of 8 steps decodes
                                one more while the others are prefilled 4 tokens at a time
LogitError(2.1e-6, 4095)        the row that differs most is that of position 4095
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.base.model_runner import DecodeBatch, Ints, ModelRunner, PrefillChunk
from headrace_worker.engine.files.length_thresholds import threshold_positions

_PROMPT_TOKENS = (7, 5, 9, 12)
"""The first prompt decodes while the others are prefilled."""
_DECODED = 8
"""Tokens decoded one by one behind the first prompt."""
_CHUNK = 4
_ACROSS = 12
"""Tokens of a prompt that crosses a threshold, half of them before it."""
_NOTHING = np.empty(0, dtype=np.int64)
NOTHING_DECODES = DecodeBatch(_NOTHING, _NOTHING, _NOTHING)


@dataclass(frozen=True, slots=True)
class ProbePrompt:
    """Tokens, the first of which stands at `first_position`."""

    token_ids: Ints
    first_position: int = 0

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class LogitError:
    """The largest error of a row, as a share of the spread of the logits, and its position."""

    error: float
    position: int

    def describe(self, tolerance: float) -> str:
        fact = f"its logits are off by {self.error:.2g} of their spread, over {tolerance:g}"
        return f"{fact}, at position {self.position}"


def probe_prompts(model: PreTrainedModel, context_tokens: int | None) -> list[ProbePrompt]:
    """Return short prompts, then one across each threshold and one at the end of the context."""
    config = model.config.get_text_config()
    lengths = [_PROMPT_TOKENS[0] + _DECODED, *_PROMPT_TOKENS[1:]]
    longest = max(lengths)
    position_offsets = [0] * len(lengths)
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    if context_tokens is not None and context_tokens > longest and takes_positions:
        ends = context_tokens - _ACROSS // 2
        switches = threshold_positions(config, first=longest, context_tokens=ends)
        position_offsets += [switch - _ACROSS // 2 for switch in (*switches, ends)]
        lengths += [_ACROSS] * (len(switches) + 1)
    prompts = []
    for index, (length, first) in enumerate(zip(lengths, position_offsets, strict=True)):
        numbers = np.arange(length, dtype=np.int64) * 7919 + index * 104729 + 11
        prompts.append(ProbePrompt(numbers % config.vocab_size, first))
    return prompts


def position_offsets(prompts: list[ProbePrompt]) -> Mapping[int, int]:
    """Return by slot the first position of its prompt, where that is not 0."""
    return {slot: each.first_position for slot, each in enumerate(prompts) if each.first_position}


def reference_logits(model: PreTrainedModel, prompts: list[ProbePrompt]) -> list[Tensor]:
    """Return the plain model's logits of each prompt, `(tokens, vocabulary)`, without a cache."""
    model.set_attn_implementation("eager")
    logits = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.token_ids)[None].to(model.device)
        positions = prompt.first_position + torch.arange(len(prompt), device=model.device)[None]
        where = {"position_ids": positions} if prompt.first_position else {}
        logits.append(model(input_ids=ids, use_cache=False, **where).logits[0].float())
    return logits


def largest_error(
    forward: ModelRunner, prompts: list[ProbePrompt], expected: list[Tensor]
) -> LogitError:
    """Prefill the first prompt, decode its rest while the others are prefilled, and compare."""
    first, ids = _PROMPT_TOKENS[0], prompts[0].token_ids
    chunk = _CHUNK if forward.supports_chunked_prefill else max(map(len, prompts))
    logits = forward.run(NOTHING_DECODES, [PrefillChunk(0, 0, ids[:first], is_last_chunk=True)])
    found = [LogitError(relative_error(logits[0], expected[0], first - 1), first - 1)]
    for step in range(_DECODED):
        at = np.array([first + step])
        decode = DecodeBatch(np.array([0]), ids[at], at)
        pieces = (_piece(n, prompt, step * chunk, chunk) for n, prompt in enumerate(prompts) if n)
        prefills = [piece for piece in pieces if len(piece.token_ids)]
        logits = forward.run(decode, prefills)
        rows = [(0, int(at[0]))]
        rows += [(p.slot, len(prompts[p.slot]) - 1) for p in prefills if p.is_last_chunk]
        for row, (slot, place) in zip(logits, rows, strict=True):
            error = relative_error(row, expected[slot], place)
            found.append(LogitError(error, prompts[slot].first_position + place))
    # Why not max: it passes over a NaN that is not the first.
    return found[int(np.argmax([each.error for each in found]))]


def _piece(slot: int, prompt: ProbePrompt, start: int, chunk: int) -> PrefillChunk:
    ids = prompt.token_ids[start : start + chunk]
    return PrefillChunk(slot, start, ids, start + chunk >= len(prompt))


def relative_error(logits: Tensor, expected: Tensor, position: int) -> float:
    """Return the root mean square of the differences over the standard deviation of `expected`.

    Why not the largest difference: in bfloat16 that grows with the vocabulary.
    """
    spread = expected.std().item()
    if not spread > 0:
        raise ValueError("the plain model's logits are all equal or no numbers")
    return (logits - expected[position]).square().mean().sqrt().item() / spread

"""Whether a model comes out right, packed or stepwise; asked at every load.

No flag of transformers tells: some models that claim to take any attention
function keep state elsewhere, some that do not claim it work. So prompts are run
in chunks beside one that decodes, and every logit is held against the plain model.

Some of the texts stand at the context's end and across the positions at which the model may
change its ways (`switches`), beside short ones: nothing may depend on a pass's longest text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

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
from headrace_worker.engine.switches import narrowed, switch_positions

Ints = NDArray[np.int64]
S = TypeVar("S", bound=KvStore)
T = TypeVar("T")

_PROMPT_TOKENS = (7, 5, 9, 12)
"""The first prompt decodes while the others are prefilled."""
_DECODED = 8
"""Tokens fed one by one behind the first prompt."""
_CHUNK = 4
_ACROSS = 12
"""Tokens of a text that stands across a switch, half of them before it."""
_WIDTH = 6
"""How far layers with a window look back meanwhile: less than the texts are long."""
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Largest error of a row, as a share of the spread of the logits."""
_NOTHING = np.empty(0, dtype=np.int64)
_NONE = Decode(_NOTHING, _NOTHING, _NOTHING)
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


@dataclass(frozen=True, slots=True)
class _Text:
    """Tokens, of which the first stands at position `origin`."""

    token_ids: Ints
    origin: int = 0

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class _Worst:
    """The row that is furthest off, as a share of the spread of the logits, and where it stands."""

    error: float
    position: int

    def far_off(self, tolerance: float) -> str:
        fact = f"its logits are off by {self.error:.2g} of their spread, over {tolerance:g}"
        return f"{fact}, at position {self.position}"


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
        return _check_packable(model, new_store, _texts(model, bound))

    trial, at_most_tokens = _across_widths(model, check, context_tokens, NotPackable)
    return Packing(trial, at_most_tokens)


def check_steppable(model: PreTrainedModel, context_tokens: int | None = None) -> Stepping:
    """Leave the model with the faster attention of transformers' own that is right.

    Raises:
        NotSteppable: its logits differ from the plain model's with each, or it fails.
    """

    def check(bound: int | None) -> Stepping:
        return _check_steppable(model, _texts(model, bound))

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
    model: PreTrainedModel, new_store: Callable[[int, int], S], texts: list[_Text]
) -> S:
    store = new_store(len(texts), max(map(len, texts)))
    try:
        with torch.inference_mode():
            expected = _plain_logits(model, texts)
            model.set_attn_implementation(IMPLEMENTATION)
            forward = PackedForward(model, store, origins=_origins(texts))
            worst = _worst(forward, texts, expected)
    except Exception as failure:  # a model's own code may raise anything
        raise NotPackable(f"{type(failure).__name__}: {failure}") from failure
    layers = model.config.get_text_config().num_hidden_layers
    if store.layers != layers:
        raise NotPackable(f"{layers - store.layers} of its {layers} layers keep state of their own")
    tolerance = _TOLERANCE[model.dtype]
    if not worst.error <= tolerance:
        raise NotPackable(worst.far_off(tolerance))
    return store


def _check_steppable(model: PreTrainedModel, texts: list[_Text]) -> Stepping:
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


def _try_stepping(model: PreTrainedModel, implementation: str, texts: list[_Text]) -> Stepping:
    expected = _plain_logits(model, texts)
    _require_causal(model, texts, expected[1])
    model.set_attn_implementation(implementation)
    worst = _worst(_stepwise(model, texts, chunks_prompts=False), texts, expected)
    tolerance = _TOLERANCE[model.dtype]
    if not worst.error <= tolerance:
        raise NotSteppable(worst.far_off(tolerance))
    # Rounding is not what this asks for, so the tolerance of the type would be too kind.
    may_err = max(_TOLERANCE[torch.float32], 2 * worst.error)
    return Stepping(_error_in_chunks(model, texts, expected) <= may_err)


def _require_causal(model: PreTrainedModel, texts: list[_Text], expected: Tensor) -> None:
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
    errors = [_error(logits[place], expected, place) for place in range(len(short))]
    worst = _Worst(float(np.max(errors)), int(np.argmax(errors)))
    if not worst.error <= _TOLERANCE[model.dtype]:
        fact = worst.far_off(_TOLERANCE[model.dtype])
        raise NotSteppable(f"with a token at position {far} behind it {fact}")


def _measured(model: PreTrainedModel, stepping: Stepping) -> Stepping:
    """With what a sequence takes, by two of unlike length."""
    forward = StepwiseForward(model, chunks_prompts=False)
    texts = _texts(model, None)[:2]
    prefills = [Prefill(n, 0, text.token_ids, completes=True) for n, text in enumerate(texts)]
    with torch.inference_mode():
        forward.run(_NONE, prefills)
    longest, shortest = forward.caches[0], forward.caches[1]
    per_token = (longest.bytes - shortest.bytes) // (longest.length - shortest.length)
    fixed_bytes = longest.bytes - per_token * longest.length
    return replace(stepping, fixed_bytes=fixed_bytes, bytes_per_token=per_token)


def _error_in_chunks(model: PreTrainedModel, texts: list[_Text], expected: list[Tensor]) -> float:
    """Infinite where the model does not take a prompt in pieces at all."""
    try:
        return _worst(_stepwise(model, texts, chunks_prompts=True), texts, expected).error
    except Exception:  # noqa: BLE001  # a model's own code may raise anything
        return float("inf")


def _stepwise(
    model: PreTrainedModel, texts: list[_Text], *, chunks_prompts: bool
) -> StepwiseForward:
    return StepwiseForward(model, chunks_prompts=chunks_prompts, origins=_origins(texts))


def _texts(model: PreTrainedModel, context_tokens: int | None) -> list[_Text]:
    """Short texts, then those that end a context of so many tokens or stand across a switch."""
    config = model.config.get_text_config()
    lengths = [_PROMPT_TOKENS[0] + _DECODED, *_PROMPT_TOKENS[1:]]
    first = max(lengths) + _ACROSS
    origins = [0] * len(lengths)
    if context_tokens is not None and context_tokens > first and _takes_positions(model):
        ends = context_tokens - _ACROSS // 2
        switches = switch_positions(config, first=first, context_tokens=ends)
        origins += [switch - _ACROSS // 2 for switch in (*switches, ends)]
        lengths += [_ACROSS] * (len(switches) + 1)
    pairs = enumerate(zip(lengths, origins, strict=True))
    return [_text(index, length, origin, config.vocab_size) for index, (length, origin) in pairs]


def _text(index: int, length: int, origin: int, vocabulary: int) -> _Text:
    numbers = np.arange(length, dtype=np.int64) * 7919 + index * 104729 + 11
    return _Text(numbers % vocabulary, origin)


def _origins(texts: list[_Text]) -> Mapping[int, int]:
    return {slot: text.origin for slot, text in enumerate(texts) if text.origin}


def _takes_positions(model: PreTrainedModel) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


def _plain_logits(model: PreTrainedModel, texts: list[_Text]) -> list[Tensor]:
    """Every position's logits of each text, without any cache."""
    model.set_attn_implementation("eager")
    logits = []
    for text in texts:
        ids = torch.from_numpy(text.token_ids)[None].to(model.device)
        positions = text.origin + torch.arange(len(text), device=model.device)[None]
        where = {"position_ids": positions} if text.origin else {}
        logits.append(model(input_ids=ids, use_cache=False, **where).logits[0].float())
    return logits


def _worst(forward: Forward, texts: list[_Text], expected: list[Tensor]) -> _Worst:
    """Prefill the first text's prompt, then decode its rest while the others are prefilled."""
    first, ids = _PROMPT_TOKENS[0], texts[0].token_ids
    chunk = _CHUNK if forward.chunks_prompts else max(map(len, texts))
    logits = forward.run(_NONE, [Prefill(0, 0, ids[:first], completes=True)])
    found = [_Worst(_error(logits[0], expected[0], first - 1), first - 1)]
    for step in range(_DECODED):
        at = np.array([first + step])
        decode = Decode(np.array([0]), ids[at], at)
        pieces = (_piece(n, text, step * chunk, chunk) for n, text in enumerate(texts) if n)
        prefills = [piece for piece in pieces if len(piece.token_ids)]
        logits = forward.run(decode, prefills)
        rows = [(0, int(at[0]))]
        rows += [(p.slot, len(texts[p.slot]) - 1) for p in prefills if p.completes]
        for row, (slot, place) in zip(logits, rows, strict=True):
            error = _error(row, expected[slot], place)
            found.append(_Worst(error, texts[slot].origin + place))
    # Why not max: it passes over a NaN that is not the first.
    return found[int(np.argmax([each.error for each in found]))]


def _piece(slot: int, text: _Text, start: int, chunk: int) -> Prefill:
    ids = text.token_ids[start : start + chunk]
    return Prefill(slot, start, ids, start + chunk >= len(text))


def _error(logits: Tensor, expected: Tensor, position: int) -> float:
    """The root mean square of the differences over that of the spread.

    Why not the largest difference: in bfloat16 that grows with the vocabulary.
    """
    spread = expected.std().item()
    if not spread > 0:
        raise ValueError("the plain model's logits are all equal or no numbers")
    return (logits - expected[position]).square().mean().sqrt().item() / spread

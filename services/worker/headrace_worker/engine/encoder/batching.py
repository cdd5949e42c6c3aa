"""Choose which inputs are computed together, and validate inputs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from headrace_worker.engine.base.interface import EngineFacts, Sequence, SequenceRefused
from headrace_worker.engine.core.stop_conditions import require_known_ids

_PADDING_SHARE = 4
_PADDING_FREE = 8


class BatchMode(StrEnum):
    """Which inputs may share a forward pass."""

    PADDED = "padded"
    """Inputs of similar length; the shorter are padded."""
    SAME_LENGTH = "equal"
    """Inputs of one length: padding changes the results of this model."""
    SINGLE = "alone"
    """One input: other inputs change the results of this model."""


def validate_input(sequence: Sequence, facts: EngineFacts) -> None:
    """Refuse an input that cannot be computed.

    Raises:
        SequenceRefused: it is empty, too long, or has ids outside the vocabulary.
    """
    ids = sequence.prompt_ids
    if not ids:
        raise SequenceRefused("the input has no tokens")
    if len(ids) > facts.context_tokens:
        raise SequenceRefused(f"{len(ids)} tokens do not fit a context of {facts.context_tokens}")
    require_known_ids(ids, facts.vocabulary_size)


def choose_batch(
    lengths: Mapping[int, int], *, batch_tokens: int, batch_mode: BatchMode
) -> list[int]:
    """Choose the sequences of the next pass: the oldest, and those nearest in length.

    `lengths` is by sequence id, oldest first. The pass stays within `batch_tokens` with its padding
    (the oldest goes alone if it is longer), and its lengths differ by at most a quarter, or 8
    tokens: padding costs as much as text.
    """
    if not lengths:
        return []
    ids = sorted(lengths, key=lambda each: lengths[each])  # of equals, the older first
    oldest = next(iter(lengths))
    if batch_mode is BatchMode.SINGLE:
        return [oldest]
    low = high = ids.index(oldest)
    while True:
        shortest, longest, count = lengths[ids[low]], lengths[ids[high]], high - low + 2
        near: list[tuple[int, int, int]] = []
        if low > 0 and _fit(lengths[ids[low - 1]], longest, count, batch_tokens, batch_mode):
            near.append((lengths[oldest] - lengths[ids[low - 1]], low - 1, high))
        if high + 1 < len(ids) and _fit(
            shortest, lengths[ids[high + 1]], count, batch_tokens, batch_mode
        ):
            near.append((lengths[ids[high + 1]] - lengths[oldest], low, high + 1))
        if not near:
            return ids[low : high + 1]
        _, low, high = min(near)


def _fit(shortest: int, longest: int, count: int, batch_tokens: int, batch_mode: BatchMode) -> bool:
    is_padded = batch_mode is not BatchMode.SAME_LENGTH
    spread = max(_PADDING_FREE, longest // _PADDING_SHARE) if is_padded else 0
    return longest - shortest <= spread and count * longest <= batch_tokens

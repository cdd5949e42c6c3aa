"""Pure room: which inputs fit an engine that makes vectors, and which are computed together."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from headrace_worker.engine.base.interface import Sequence, SequenceRefused

_PADDING_SHARE = 4
_PADDING_FREE = 8


class Company(StrEnum):
    """Who may share a forward pass with whom."""

    PADDED = "padded"
    """Inputs of nearly one length; the shorter are padded."""
    EQUAL = "equal"
    """Inputs of one length: the model minds padding."""
    ALONE = "alone"
    """Nobody: the model minds company."""


def require_input_fit(sequence: Sequence, *, context_tokens: int, vocabulary_size: int) -> None:
    """Refuse an input that cannot be computed.

    Raises:
        SequenceRefused: it is empty, too long, or has ids outside the vocabulary.
    """
    ids = sequence.prompt_ids
    if not ids:
        raise SequenceRefused("the input has no tokens")
    if len(ids) > context_tokens:
        raise SequenceRefused(f"{len(ids)} tokens do not fit a context of {context_tokens}")
    least, most = min(ids), max(ids)
    if least < 0 or most >= vocabulary_size:
        stray = least if least < 0 else most
        raise SequenceRefused(f"token id {stray} is outside the vocabulary of {vocabulary_size}")


def choose_pass(lengths: Mapping[int, int], *, pass_tokens: int, company: Company) -> list[int]:
    """Choose the sequences of the next forward pass: the oldest, and those nearest in length.

    `lengths` is by sequence id, oldest first. The pass stays within `pass_tokens` with its
    padding (the oldest goes alone if it is longer), and its shortest and longest differ by at
    most a quarter, or 8 tokens: padding costs as much as text.
    """
    if not lengths:
        return []
    ids = sorted(lengths, key=lambda each: lengths[each])  # of equals, the older first
    oldest = next(iter(lengths))
    if company is Company.ALONE:
        return [oldest]
    low = high = ids.index(oldest)
    while True:
        shortest, longest, count = lengths[ids[low]], lengths[ids[high]], high - low + 2
        near: list[tuple[int, int, int]] = []
        if low > 0 and _fit(lengths[ids[low - 1]], longest, count, pass_tokens, company):
            near.append((lengths[oldest] - lengths[ids[low - 1]], low - 1, high))
        if high + 1 < len(ids) and _fit(
            shortest, lengths[ids[high + 1]], count, pass_tokens, company
        ):
            near.append((lengths[ids[high + 1]] - lengths[oldest], low, high + 1))
        if not near:
            return ids[low : high + 1]
        _, low, high = min(near)


def _fit(shortest: int, longest: int, count: int, pass_tokens: int, company: Company) -> bool:
    spread = 0 if company is Company.EQUAL else max(_PADDING_FREE, longest // _PADDING_SHARE)
    return longest - shortest <= spread and count * longest <= pass_tokens

"""Pure: float32 vectors as little-endian bytes: shortened, normalized, compared."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from math import exp, sqrt
from operator import mul

from headrace.errors import InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard


def values_of(vector: bytes) -> array[float]:
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def bytes_of(values: array[float]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def shortened(vector: bytes, dimensions: int | None) -> bytes:
    """Its first so many dimensions, of length 1 again; None leaves it as it is."""
    if dimensions is None or 4 * dimensions == len(vector):
        return vector
    return unit(vector[: 4 * dimensions])


def unit(vector: bytes) -> bytes:
    """The same direction, of length 1; one without direction is left as it is."""
    values = values_of(vector)
    length = _length(values)
    return bytes_of(array("f", [each / length for each in values])) if length else vector


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """0 where one of them has no direction."""
    lengths = _length(one) * _length(other)
    return sum(map(mul, one, other)) / lengths if lengths else 0.0


def probabilities(logits: bytes, *, multi_label: bool) -> list[float]:
    """Return the probability of each label: of one among all, or of each by itself."""
    values = values_of(logits)
    if multi_label or len(values) == 1:
        return [_sigmoid(each) for each in values]
    highest = max(values)
    powers = [exp(each - highest) for each in values]
    total = sum(powers)
    return [each / total for each in powers]


def _sigmoid(value: float) -> float:
    # Why two forms: the power of a large number overflows.
    return 1 / (1 + exp(-value)) if value >= 0 else exp(value) / (1 + exp(value))


def check_dimensions(dimensions: int | None, card: ModelCard) -> None:
    """
    Raises:
        InvalidRequest: the model's vectors do not have so many.
    """
    most = card.vectors.dimensions
    if dimensions is not None and not 1 <= dimensions <= most:
        raise InvalidRequest(
            f"dimensions is {dimensions}; vectors of model {card.model} have {most}, and can be"
            f" cut to 1 to {most}",
            field="dimensions",
        )


def _length(values: Sequence[float]) -> float:
    return sqrt(sum(map(mul, values, values)))

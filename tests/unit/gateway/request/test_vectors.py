"""The numbers of vectors."""

from __future__ import annotations

import struct

import pytest

from headrace.errors import InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace_gateway.request.vectors import (
    bytes_of,
    check_dimensions,
    cosine,
    shortened,
    values_of,
)


def packed(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def test_values_are_little_endian_floats() -> None:
    assert values_of(packed(0.5, -2.0)).tolist() == [0.5, -2.0]
    assert bytes_of(values_of(packed(0.5, -2.0))) == packed(0.5, -2.0)


def test_a_shortened_vector_has_length_one_again() -> None:
    assert shortened(packed(3, 4, 5), 2) == packed(0.6, 0.8)
    assert shortened(packed(3, 4, 5), 3) == shortened(packed(3, 4, 5), None) == packed(3, 4, 5)
    assert shortened(packed(0, 0, 5), 2) == packed(0, 0)


def test_the_cosine_is_of_directions() -> None:
    assert cosine([3, 0], [7, 0]) == 1
    assert cosine([3, 0], [0, 2]) == 0
    assert cosine([1, 1], [-2, -2]) == pytest.approx(-1)
    assert cosine([0, 0], [1, 1]) == 0


def test_a_vector_is_only_ever_made_shorter() -> None:
    card = ModelCard(model="m", vectors=VectorFacts(dimensions=8))
    for dimensions in (None, 1, 8):
        check_dimensions(dimensions, card)
    for dimensions in (0, 9):
        with pytest.raises(InvalidRequest, match=f"dimensions is {dimensions}.*1 to 8"):
            check_dimensions(dimensions, card)

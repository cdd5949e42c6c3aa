"""Pure: whose limits a request counts against, and with how many tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


def first_output(most: int, *, batch: bool, ahead: int) -> int:
    """Return how much of its output is reserved before a request is queued. Rows of batches
    reserve all of it: they are run again if they are refused, and do not wait half-way."""
    return most if batch else min(most, ahead)


@dataclass(frozen=True, slots=True)
class Payer:
    tenant: str
    key_id: str
    """Empty: none."""
    model: str
    """As it is listed and billed."""
    batch: bool = False
    """Of a row of a batch, which counts against the tokens of batches."""
    is_part: bool = False
    """Another request of the same call counts as the request."""


class TokenRange(NamedTuple):
    """How many tokens a request reserves before it is queued, as far as is known."""

    fewest: int
    most: int

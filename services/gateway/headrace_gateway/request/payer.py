"""Pure: whose limits a request counts against, and with how many tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Payer:
    tenant: str
    key_id: str
    """Empty: none."""
    model: str
    """As it is listed and billed."""
    batch: bool = False
    """Of a row of a batch, which counts against the tokens of batches."""


class TokenRange(NamedTuple):
    """How many tokens a request needs, its whole output included, as far as is known."""

    fewest: int
    most: int

"""How much of batches is worked on at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchLimits:
    rows_per_batch: int
    """That run or wait to run again, at a time."""
    rows_in_all: int
    """That run at a time, of all batches."""
    batches: int
    """That are worked on at a time, the oldest first."""
    retry_s: float = 0.5
    """Before what failed for want of anything is tried again, unless it says when."""
    poll_s: float = 1.0
    """Between two looks for batches."""

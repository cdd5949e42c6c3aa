"""Sampling parameters in columns, as the engine keeps them by slot."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_worker.engine.base.interface import SamplingParameters
from headrace_worker.engine.sampling.host_sampling import SamplingColumns


def columns_of(parameters: Sequence[SamplingParameters], *, seed: int = 5) -> SamplingColumns:
    """A row for each of these, all with one seed."""
    columns = SamplingColumns.neutral(len(parameters))
    for row, each in enumerate(parameters):
        columns.set(row, each, seed)
    return columns

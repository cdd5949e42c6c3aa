"""Counters of an engine since its start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headrace_worker.engine.base.interface import EngineStatistics


@dataclass(slots=True)
class EngineCounters:
    """The counters of `EngineStatistics`."""

    steps: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    busy_s: float = 0.0
    prefix_queries: int = 0
    prefix_hits: int = 0

    def statistics(self, **held: Any) -> EngineStatistics:
        """Return the counters together with what the engine holds now."""
        return EngineStatistics(**held, **asdict(self))

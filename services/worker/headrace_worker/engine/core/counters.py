"""What an engine has done since its start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headrace_worker.engine.base.interface import EngineStatistics


@dataclass(slots=True)
class EngineCounters:
    """Counted as `EngineStatistics` has it."""

    steps: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    busy_s: float = 0.0
    prefix_queries: int = 0
    prefix_hits: int = 0

    def statistics(self, **held: Any) -> EngineStatistics:
        """With what the engine holds at this moment."""
        return EngineStatistics(**held, **asdict(self))

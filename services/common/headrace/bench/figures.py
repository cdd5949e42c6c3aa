"""The figures of a load run, from the outcome of each request. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Outcome:
    """One request, with times in seconds of one monotonic clock."""

    began_s: float
    ended_s: float = 0.0
    text_times_s: list[float] = field(default_factory=list)
    """When each chunk with text arrived; answers that are not streamed have one."""
    output_tokens: int = 0
    """By the server's usage."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles in milliseconds; None without values."""

    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """One run at one concurrency. Requests that failed count in `errors` alone."""

    concurrency: int
    requests: int
    errors: int
    seconds: float
    requests_per_s: float
    output_tokens: int
    output_tokens_per_s: float
    ttft: Spread
    """From sending a request to its first chunk with text."""
    inter_token: Spread
    """Between successive chunks with text. A chunk holds all tokens that were ready."""
    latency: Spread
    """From sending a request to its end."""
    pieces: int
    cpu_s: dict[str, float]
    """By process, over the run; empty for a mesh on another machine."""
    output_tokens_per_cpu_s: float | None
    client_cpu_s: float
    """Where this is near `seconds`, the run has measured the load generator."""
    error_examples: list[str]


def figures(
    outcomes: Sequence[Outcome], *, concurrency: int, cpu_s: dict[str, float], client_cpu_s: float
) -> Figures:
    """Sum up a run of at least one request."""
    good = [each for each in outcomes if each.error is None]
    seconds = max(each.ended_s for each in outcomes) - min(each.began_s for each in outcomes)
    tokens = sum(each.output_tokens for each in good)
    gaps = [later - earlier for each in good for earlier, later in pairwise(each.text_times_s)]
    mesh_cpu_s = sum(cpu_s.values())
    return Figures(
        concurrency=concurrency,
        requests=len(outcomes),
        errors=len(outcomes) - len(good),
        seconds=round(seconds, 4),
        requests_per_s=round(len(good) / seconds, 2),
        output_tokens=tokens,
        output_tokens_per_s=round(tokens / seconds, 2),
        ttft=spread([each.text_times_s[0] - each.began_s for each in good if each.text_times_s]),
        inter_token=spread(gaps),
        latency=spread([each.ended_s - each.began_s for each in good]),
        pieces=sum(len(each.text_times_s) for each in good),
        cpu_s={name: round(used, 3) for name, used in cpu_s.items()},
        output_tokens_per_cpu_s=round(tokens / mesh_cpu_s, 1) if mesh_cpu_s else None,
        client_cpu_s=round(client_cpu_s, 3),
        error_examples=sorted({each.error for each in outcomes if each.error is not None})[:3],
    )


def spread(values_s: Sequence[float]) -> Spread:
    """Return the percentiles of times in seconds."""
    if not values_s:
        return Spread(None, None)
    ordered = sorted(values_s)
    return Spread(_percentile_ms(ordered, 0.50), _percentile_ms(ordered, 0.99))


def _percentile_ms(ordered: Sequence[float], share: float) -> float:
    """Return the nearest rank, which is a value that occurred."""
    rank = max(1, math.ceil(share * len(ordered)))
    return round(ordered[rank - 1] * 1000, 3)

"""Defaults of an engine on a CPU: threads, and prompt tokens of a step.

They depend on figures that do not change between starts, so a restarted worker behaves as before.
"""

from __future__ import annotations

from dataclasses import dataclass

_PARAMETERS_A_THREAD = 2_000_000
"""Fewer parameters cannot keep a thread busy between two barriers."""
_CHUNK_S = 0.25
"""The longest that a prefill chunk may delay decoding sequences."""
_FLOPS_A_THREAD = 40e9
"""Of a CPU with AVX2, in float32; one with AVX-512 does twice that."""
GPU_CHUNK_TOKENS = 2048
"""Fewer do not keep a GPU busy."""
_CHUNK_TOKENS = (16, 256)
"""Minimum: below, prompts take a step for every few tokens. Maximum: above, more rows gain
nothing."""

SLOTS_WHY = "64 packed, 256 on a GPU, 8 stepwise, or what memory_utilization leaves room for"


@dataclass(frozen=True, slots=True)
class ChosenValue:
    """A value, and the reason for it."""

    value: int
    reason: str


def threads(requested: int | None, *, cores: float, workers: int, parameters: int) -> ChosenValue:
    """Return the threads of the forward pass, for one of `workers` on a machine with so many cores.

    One core is left to the rest of the mesh: threads that share a core wait for each other,
    spinning, and are slower than fewer would be.
    """
    if requested is not None:
        return ChosenValue(requested, "set")
    free = cores - 1 if cores >= 2 else cores
    share, useful = int(free / workers), parameters // _PARAMETERS_A_THREAD
    if useful < share:
        return ChosenValue(max(1, useful), f"{parameters / 1e6:.3g} M parameters keep no more busy")
    among = f" among {workers} workers" if workers > 1 else ""
    return ChosenValue(max(1, share), f"{cores:g} cores{among}, one left to the rest of the mesh")


def chunk_tokens(requested: int | None, *, threads: int, parameters: int) -> ChosenValue:
    """Return the prompt tokens of a step."""
    if requested is not None:
        return ChosenValue(requested, "set")
    least, most = _CHUNK_TOKENS
    fit = int(_CHUNK_S * _FLOPS_A_THREAD * threads / max(1, 2 * parameters))
    tokens = most
    while tokens > max(fit, least):
        tokens //= 2
    why = f"{parameters / 1e6:.3g} M parameters on {threads} threads in {_CHUNK_S:g} s"
    return ChosenValue(tokens, f"what goes through {why}, from {least} to {most}")

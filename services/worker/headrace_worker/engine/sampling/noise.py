"""Counter-based randomness: a pure function of (seed, output index, token id).

Unsigned 64-bit arithmetic, so every machine draws the same; the mixing is splitmix64's. numpy has
that arithmetic and is five times as fast at it as torch with signed integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def seed_key(seed: int) -> int:
    """Hash a seed, any 64-bit unsigned integer, to another."""
    return int(_mix(np.array([seed], dtype=np.uint64) + _GOLDEN)[0])


def noise_bits(seed_keys: Words, indices: Words, token_ids: Words) -> Words:
    """Return 64 random bits for each row's token: `(rows, tokens)`.

    `seed_keys` (from `seed_key`) and output `indices` are `(rows,)`; `token_ids` is `(tokens,)` for
    all rows or `(rows, tokens)`.
    """
    rows = _mix(seed_keys + indices * _GOLDEN)
    return _mix(rows[:, None] + (token_ids + np.uint64(1)) * _GOLDEN)


def exponentials(bits: Words) -> NDArray[np.float64]:
    """Turn bits into draws from the exponential distribution with mean 1; finite, above 0."""
    # Why 52 bits and a half: every such number is exact in float64 and none is 0 or 1.
    uniform = (bits >> np.uint64(12)).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-52
    np.log(uniform, out=uniform)
    return np.negative(uniform, out=uniform)


def _mix(value: Words) -> Words:
    """Apply splitmix64's finalizer, in place."""
    value ^= value >> np.uint64(30)
    value *= _FIRST
    value ^= value >> np.uint64(27)
    value *= _SECOND
    value ^= value >> np.uint64(31)
    return value

"""Beginnings of texts, in blocks that are named by all that stands before them.

Engines name what they hold, workers report the names, leaders name what waits: equal names,
equal tokens from the very first on, under equal weights.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

BlockHashes = list[bytes]
"""Of the blocks of one text, in order."""

BLOCK_TOKENS = 16
_NAME_BYTES = 16
_TOKEN_BYTES = 8
_SHORT_BYTES = 8


class TokenIds(Protocol):
    """An array of 64-bit integers, whoever's."""

    def tobytes(self) -> bytes: ...


def root_hash(weights_digest: str) -> bytes:
    """What a text's first block follows on: keys and values of other weights are others."""
    return blake2b(weights_digest.encode(), digest_size=_NAME_BYTES).digest()


def adapter_root(root: bytes, adapter: str) -> bytes:
    """What follows on the weights of `root` changed by an adapter, by its digest; empty is none."""
    if not adapter:
        return root
    return blake2b(root + adapter.encode(), digest_size=_NAME_BYTES).digest()


def salted_root(root: bytes, salt: str) -> bytes:
    """What follows on `root` for texts that are kept apart by a salt; empty is none."""
    if not salt:
        return root
    return blake2b(root + salt.encode(), digest_size=_NAME_BYTES, person=b"salt").digest()


def block_hashes(token_ids: TokenIds, root: bytes) -> BlockHashes:
    """Name the full blocks of a text; equal names, equal tokens from the very first on."""
    octets, size = token_ids.tobytes(), BLOCK_TOKENS * _TOKEN_BYTES
    names, name = [], root
    for at in range(0, len(octets) - size + 1, size):
        name = blake2b(name + octets[at : at + size], digest_size=_NAME_BYTES).digest()
        names.append(name)
    return names


def short_hash(name: bytes) -> int:
    """A name as reports have it, below 2**64: two in a billion are equal by chance once in a
    billion times, and then a prefill is not saved."""
    return int.from_bytes(name[:_SHORT_BYTES], "little")

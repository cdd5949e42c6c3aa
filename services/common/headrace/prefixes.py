"""Hashes of the prefixes of texts, block by block, for prefix caching and prefix-aware routing.

A block's hash covers all tokens from the first of the text on, and the weights: equal hashes mean
equal prefixes. Engines hash the blocks that they cache, workers report the hashes, and leaders hash
the prompts that wait:

    weights digest "w", text of 40 tokens
    root   = root_hash("w")
    block 0 = H(root    + tokens 0 to 15)
    block 1 = H(block 0 + tokens 16 to 31)
    block_hashes(tokens, root) -> [block 0, block 1]      tokens 32 to 39 fill no block
    short_hash(block 1) -> 64 bits, as reports have it
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

BlockHashes = list[bytes]
"""Of the full blocks of one text, in order."""

BLOCK_TOKENS = 16
_HASH_BYTES = 16
_TOKEN_BYTES = 8
_SHORT_BYTES = 8


class TokenIds(Protocol):
    """Any array of 64-bit integers."""

    def tobytes(self) -> bytes: ...


def root_hash(weights_digest: str) -> bytes:
    """Return the hash that the first block follows: keys and values depend on the weights."""
    return blake2b(weights_digest.encode(), digest_size=_HASH_BYTES).digest()


def adapter_root(root: bytes, adapter: str) -> bytes:
    """Return the root of the weights changed by an adapter, given its digest; empty is none."""
    if not adapter:
        return root
    return blake2b(root + adapter.encode(), digest_size=_HASH_BYTES).digest()


def salted_root(root: bytes, salt: str) -> bytes:
    """Return the root of texts that a salt separates from all others; empty is none."""
    if not salt:
        return root
    return blake2b(root + salt.encode(), digest_size=_HASH_BYTES, person=b"salt").digest()


def block_hashes(token_ids: TokenIds, root: bytes) -> BlockHashes:
    """Return the hashes of the full blocks of a text."""
    octets, size = token_ids.tobytes(), BLOCK_TOKENS * _TOKEN_BYTES
    hashes, last = [], root
    for at in range(0, len(octets) - size + 1, size):
        last = blake2b(last + octets[at : at + size], digest_size=_HASH_BYTES).digest()
        hashes.append(last)
    return hashes


def short_hash(block_hash: bytes) -> int:
    """Return a hash as reports have it, below 2**64. After a collision a prefill is not saved."""
    return int.from_bytes(block_hash[:_SHORT_BYTES], "little")

"""Long work in Python, in steps between which the event loop serves other streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

_AT_ONCE = 16
"""A vector of a thousand numbers takes about 0.1 ms to cut, to compare or to print."""
_PIECE_BYTES = 256 * 1024


async def cooperatively(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items, and let other tasks run after every few of them."""
    for number, item in enumerate(items):
        if number % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        yield item


async def joined_chunks(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts, joined to pieces that are large enough for a message each."""
    held: list[bytes] = []
    size = 0
    async for part in parts:
        held.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)

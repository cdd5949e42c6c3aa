"""Cuts the bytes of an input file into its lines, with bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

MAX_LINE_BYTES = 8 * 1024 * 1024
"""As the body of one request may have by default."""


async def lines_of(
    pieces: AsyncIterable[bytes], *, max_bytes: int = MAX_LINE_BYTES
) -> AsyncIterator[tuple[int, bytes | None]]:
    """Yield number and content of each line that is not blank; None for the content of one that is
    longer than `max_bytes`.

    Numbers count from 1 and include blank lines. Lines end with LF or CR LF; the last one need not.
    """
    number, rest, is_skipping = 1, bytearray(), False
    async for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            rest += piece[start:end]
            is_long = is_skipping or len(rest) > max_bytes
            if is_long or rest.strip():
                yield number, None if is_long else bytes(rest)
            rest.clear()
            number, start, is_skipping = number + 1, end + 1, False
        rest += piece[start:]
        if len(rest) > max_bytes:
            is_skipping = True
            rest.clear()
    if is_skipping or rest.strip():
        yield number, None if is_skipping or len(rest) > max_bytes else bytes(rest)

"""JSON as it is stored: compressed, and bounded both as it is and compressed.

What is large is packed and unpacked in a thread, because a megabyte takes milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

from headrace.bus.objects import MAX_PART_BYTES
from headrace.errors import InvalidRequest

Json = dict[str, Any]

MAX_JSON_BYTES = 16 * 1024 * 1024
_INLINE_BYTES = 256 * 1024


class TooLong(Exception):
    """More JSON is stored than is ever read."""


async def packed(value: Json, field: str) -> bytes:
    """Return JSON as it is stored.

    Raises:
        InvalidRequest: it is too large; `field` is what makes it so.
    """
    if text_length(value) <= _INLINE_BYTES:
        return _packed(value, field)
    return await asyncio.to_thread(_packed, value, field)


async def unpacked(payload: bytes) -> Json:
    """Return what was packed.

    Raises:
        TooLong: it has more than MAX_JSON_BYTES.
    """
    reader = zlib.decompressobj()
    start = reader.decompress(payload, _INLINE_BYTES)
    if reader.eof:
        value: Json = json.loads(start)
        return value
    return await asyncio.to_thread(_rest, reader, start)


def text_length(value: object) -> int:
    """Return how many characters all texts of a JSON value have, with the names of members."""
    length, left = 0, list[object]([value])
    while left:
        each = left.pop()
        if isinstance(each, str):
            length += len(each)
        elif isinstance(each, dict):
            left += each.keys()
            left += each.values()
        elif isinstance(each, list):
            left += each
    return length


def _packed(value: Json, field: str) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    if len(text) > MAX_JSON_BYTES:
        raise InvalidRequest(
            f"{field} has {len(text)} bytes as JSON; {MAX_JSON_BYTES} can be stored. Send less, or"
            " send `store` false",
            field=field,
        )
    payload = zlib.compress(text, level=1)
    if len(payload) > MAX_PART_BYTES:
        raise InvalidRequest(
            f"{field} has {len(payload)} bytes when it is compressed; {MAX_PART_BYTES} can be"
            " stored. Send less, or send `store` false",
            field=field,
        )
    return payload


def _rest(reader: Any, start: bytes) -> Json:
    rest = reader.decompress(reader.unconsumed_tail, MAX_JSON_BYTES - len(start) + 1)
    if not reader.eof or len(start) + len(rest) > MAX_JSON_BYTES:
        raise TooLong(f"stored JSON has more than {MAX_JSON_BYTES} bytes")
    value: Json = json.loads(start + rest)
    return value

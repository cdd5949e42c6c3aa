"""Bodies to Python objects, at a bounded price: the parser holds the event loop while it runs."""

from __future__ import annotations

import zlib
from typing import Any

from pydantic_core import from_json

from headrace.errors import InvalidRequest

_MAX_BRACKETS = 500_000
"""A megabyte of empty lists takes a hundred times as long as one of text."""

MAX_ENTRIES = 10_000
"""Of any list or object but token ids; what is checked entry by entry must not be long."""


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""It has no meaning before UTF-8; .NET and PowerShell write it."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""What HTTP calls deflate."""
_EITHER_HEADER = 32 + zlib.MAX_WBITS
_HALF_A_PAIR = (
    "; it has half of a surrogate pair, as in \\ud83d alone, which a text cut within an emoji has,"
    " or a \\u without its four digits"
)


def read_object(data: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object, strictly: UTF-8, no NaN, no lone surrogates, bounded depth.

    Raises:
        InvalidRequest: it is none, or is too long.
    """
    if len(data) > max_bytes:
        raise InvalidRequest(f"the body has {len(data)} bytes; it may have {max_bytes}")
    data = _plain(data, max_bytes).removeprefix(_BYTE_ORDER_MARK)
    brackets = data.count(b"[") + data.count(b"{")
    if brackets > _MAX_BRACKETS:
        raise InvalidRequest(
            f"the body has {brackets} opening brackets; it may have {_MAX_BRACKETS}"
        )
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        hint = _HALF_A_PAIR if "hex escape" in str(error) else ""
        raise InvalidRequest(f"the body is not JSON: {error}{hint}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def texts_or_token_ids(value: object) -> list[str] | list[list[int]] | None:
    """Return a text, token ids, or a list of either, as a list; None for anything else."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds <= {str}:
            return value
        if kinds == {int} and are_token_ids(value):
            return [value]
        if kinds == {list} and all(map(are_token_ids, value)):
            return value
    return None


def _plain(data: bytes, max_bytes: int) -> bytes:
    """Return the body without compression, which its first bytes show: no JSON begins like that.

    Never more than the bound is unpacked, however much has been packed.
    """
    if data.startswith(_ZSTD):
        raise InvalidRequest("the body is compressed by zstd; send it plain, or by gzip")
    if not data.startswith((_GZIP, *_ZLIB)):
        return data
    unpacking = zlib.decompressobj(_EITHER_HEADER)
    try:
        plain = unpacking.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the compressed body cannot be read: {error}") from error
    if len(plain) > max_bytes:
        raise InvalidRequest(f"the body has more than {max_bytes} bytes once it is unpacked")
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidRequest("the compressed body does not end where its content does")
    return plain


def are_token_ids(values: list[Any]) -> bool:
    """Return whether all are unsigned integers of 32 bits; quick enough for a million."""
    if not values:
        return True
    return set(map(type, values)) == {int} and min(values) >= 0 and max(values) < 2**32

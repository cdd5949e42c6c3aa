"""API keys: their format, which typing errors do not pass. Pure.

    hr_8dFanMt4iD4_ZCp3…43 characters…w9Qk2P0x
       id, 11       secret, 43         CRC-32 of all before it, 6

All parts are in base 62. The id is public: it is the key's name in lists, logs and tables. The
secret has 256 random bits, so a digest of the key needs no slow hash. Scanners for leaked secrets
find keys by the prefix.
"""

from __future__ import annotations

import secrets
import string
from zlib import crc32

PREFIX = "hr_"
LENGTH = 64
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 11, 43, 6
_SEPARATOR_AT = len(PREFIX) + _ID_LENGTH


def base62(number: int, length: int) -> str:
    """Return the number in base 62, filled with zeros from the left to `length` digits."""
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits.rjust(length, "0")


def new_key(key_id: str = "") -> str:
    """Return a new key; of this id, if one is given: a rotated key keeps its id."""
    key_id = key_id or base62(secrets.randbits(64), _ID_LENGTH)
    start = f"{PREFIX}{key_id}_{base62(secrets.randbits(256), _SECRET_LENGTH)}"
    return start + _check(start)


def key_id_of(key: str) -> str | None:
    """Return the id of a well-formed key; None for any other text."""
    if len(key) != LENGTH or key[: len(PREFIX)] != PREFIX or key[_SEPARATOR_AT] != "_":
        return None
    if not key.isascii() or key[-_CHECK_LENGTH:] != _check(key[:-_CHECK_LENGTH]):
        return None
    return key[len(PREFIX) : _SEPARATOR_AT]


def redacted(key: str) -> str:
    """Return what lists show of a well-formed key: `hr_8dFanMt4iD4_...P0x`."""
    return f"{key[: _SEPARATOR_AT + 1]}...{key[-3:]}"


def _check(start: str) -> str:
    return base62(crc32(start.encode()), _CHECK_LENGTH)

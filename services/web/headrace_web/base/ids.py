"""Ids of what web stores. Pure."""

from __future__ import annotations

import re
import secrets

from headrace.errors import InvalidRequest

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_CHARACTERS = 24
"""124 random bits."""
_ID = re.compile(rf"[{_ALPHABET}]{{{_CHARACTERS}}}")


def new_id() -> str:
    """Return an id of a conversation, turn or link: 24 random characters of 0-9 a-z."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS))


def checked_id(value: object, *, field: str) -> str:
    """Return an id that a page has made, so that it may send its request again.

    Raises:
        InvalidRequest: it is no such id.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        fact = f"{field} must be {_CHARACTERS} characters of 0-9 a-z"
        raise InvalidRequest(fact, field=field)
    return value


def request_id_of(turn_id: str) -> str:
    """Return the id of the request that generates an assistant's turn."""
    return f"chat_{turn_id}"

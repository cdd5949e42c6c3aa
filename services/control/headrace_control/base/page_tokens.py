"""Page tokens: where a page of a list ended, so that the next one begins behind it. Pure.

A token says of which list it is, and the sort key of the last item. It can do no harm if it was
made up: its values are compared with columns, and what the caller may see is decided anew.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from headrace.errors import InvalidRequest

MAX_PAGE, DEFAULT_PAGE = 1000, 100
_MAX_CHARACTERS = 1000
_MAX_NUMBER = 2**63

Value = str | int


def page_size(requested: int) -> int:
    """Return how many items a page has: at most 1000; 0 is 100.

    Raises:
        InvalidRequest: it is negative.
    """
    if requested < 0:
        raise InvalidRequest(
            f"page_size is {requested}; it must be 0 to {MAX_PAGE}", field="page_size"
        )
    return min(requested or DEFAULT_PAGE, MAX_PAGE)


def page_token(of: str, last: Sequence[Value]) -> str:
    """Return the token of the page behind the item with this sort key, of the list `of`."""
    return urlsafe_b64encode(json.dumps([of, *last]).encode()).decode().rstrip("=")


def start_after(token: str, of: str, types: Sequence[type]) -> tuple[Value, ...] | None:
    """Return the sort key that a token of the list `of` holds; None for an empty token.

    Raises:
        InvalidRequest: it is not a token that this list has given out.
    """
    if not token:
        return None
    try:
        if len(token) > _MAX_CHARACTERS:
            raise ValueError
        found = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        name, *values = found
        if name != of or [type(value) for value in values] != list(types):
            raise ValueError
        # What no name has, such as a NUL, is an error to some databases.
        if any(isinstance(value, str) and not value.isprintable() for value in values):
            raise ValueError
        if any(isinstance(value, int) and abs(value) >= _MAX_NUMBER for value in values):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest(
            "page_token is not one that this list has given out; request the first page without"
            " one",
            field="page_token",
        ) from None
    return tuple(values)

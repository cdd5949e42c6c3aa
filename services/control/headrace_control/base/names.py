"""Which names resources may have. Pure."""

from __future__ import annotations

import re
import secrets
import unicodedata

from headrace.errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_CHARACTERS = 16


def checked_name(name: str, *, field: str) -> str:
    """Return the name of a tenant or plan.

    Raises:
        InvalidRequest: it is not 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{field} is {name[:80]!r}; it must be 1 to 64 of A-Z a-z 0-9 . _ -, and begin with a"
            " letter or digit",
            field=field,
        )
    return name


def new_id() -> str:
    """Return an id of a person, invitation or session: 16 random characters of 0-9 a-z."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARACTERS))


def email_key(email: str) -> str:
    """Return what two spellings of one e-mail address have in common.

    Raises:
        InvalidRequest: it is no e-mail address.
    """
    local, at, domain = email.rpartition("@")
    is_plain = email.isprintable() and not any(c in ' ,;:<>()[]"\\' for c in email)
    if not (at and local and domain and is_plain and "@" not in local) or len(email) > 254:
        raise InvalidRequest(
            f"email is {email[:80]!r}; it must be an address like name@example.com", field="email"
        )
    return unicodedata.normalize("NFKC", email).casefold()

"""Cookies as response headers, and the sign-ins that are under way, which a cookie holds. Pure.

    1. The browser asks to sign in, and gets a `PendingSignIn` in a cookie, encrypted and signed.
    2. It comes back from the provider with the `state` of that cookie, or else this is not the
       browser that began, and nothing is believed.

So control keeps nothing of a sign-in before it is proven, and none is bound to one process.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken

SIGN_IN_COOKIE = "headrace_sign_in"
SIGN_IN_PATH = "/v2/admin/oidc"
SIGN_IN_S = 600
"""How long a person has at the provider. Passwords and second factors take minutes."""


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """A sign-in that a browser has begun."""

    state: str
    """Comes back from the provider with the browser."""
    nonce: str
    """Comes back in the id token."""
    verifier: str
    """Of PKCE: proves to the provider that who redeems the code is who began."""
    return_to: str

    @property
    def challenge(self) -> str:
        """The verifier's SHA-256, which the provider gets first."""
        digest = sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def begin_sign_in(return_to: str) -> PendingSignIn:
    """Return a sign-in with 256 random bits in each of its secrets."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return PendingSignIn(state, nonce, verifier, return_to)


class SignInSeal:
    """Encrypts and signs sign-ins with AES-128-CBC and HMAC-SHA256."""

    def __init__(self, key: bytes) -> None:
        """Take 32 bytes, the same for all processes that may finish a sign-in."""
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, pending: PendingSignIn, *, now_s: int) -> str:
        return self._fernet.encrypt_at_time(json.dumps(asdict(pending)).encode(), now_s).decode()

    def open(self, sealed: str, *, now_s: int) -> PendingSignIn | None:
        """Return the sign-in; None if it was altered, sealed by another key, or has expired."""
        try:
            content = self._fernet.decrypt_at_time(sealed, SIGN_IN_S, now_s)
        except (InvalidToken, ValueError):
            return None
        return PendingSignIn(**json.loads(content))


def sign_in_cookie(sealed: str, *, secure: bool) -> str:
    return _cookie(SIGN_IN_COOKIE, sealed, path=SIGN_IN_PATH, max_age_s=SIGN_IN_S, secure=secure)


def cleared_sign_in_cookie(*, secure: bool) -> str:
    return _cookie(SIGN_IN_COOKIE, "", path=SIGN_IN_PATH, max_age_s=0, secure=secure)


def session_cookie(name: str, value: str, *, max_age_s: int, secure: bool) -> str:
    """Return the header that sets the session's cookie; an empty value with age 0 clears it."""
    return _cookie(name, value, path="/", max_age_s=max_age_s, secure=secure)


def cookies_named(name: str, header: str) -> Iterator[str]:
    """Yield the values of all cookies of this name in a Cookie header.

    There may be several: sites of the same domain can add their own.
    """
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name and value:
            yield value


def _cookie(name: str, value: str, *, path: str, max_age_s: int, secure: bool) -> str:
    # Why Lax: the browser comes back from the provider by a link of another site, and has to bring
    # its cookies. What changes anything needs a request that the same site made besides.
    parts = [f"{name}={value}", f"Path={path}", f"Max-Age={max_age_s}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if secure else parts)

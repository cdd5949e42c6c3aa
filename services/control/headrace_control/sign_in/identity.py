"""What an id token proves: whether it is to be believed, and about whom.

OpenID Connect Core 1.0, section 3.1.3.7. Every check that fails says for the log which one; the
browser is told only that the provider's answer was not accepted. PyJWT reads the clock itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from headrace_control.base.records import Identity

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Signatures only: `none` proves nothing, and a MAC's key would be the client's secret."""
LEEWAY_S = 60
"""How far the provider's clock may be from this one."""
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]
_LONGEST = 255


class UntrustedToken(Exception):
    """The id token proves nothing; the message says why, for the log."""


class UnknownKey(UntrustedToken):
    """No key of the provider is the token's; the provider may have a new one."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the token must have been issued for."""

    issuer: str
    client_id: str
    nonce: str


def signing_keys(jwks: Any) -> tuple[jwt.PyJWK, ...]:
    """Return the keys of a JWKS document that may sign id tokens; others are passed over."""
    entries = jwks.get("keys") if isinstance(jwks, dict) else None
    found = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        with contextlib.suppress(jwt.PyJWTError, ValueError, TypeError):
            found.append(jwt.PyJWK(entry))
    return tuple(key for key in found if key.algorithm_name in ALGORITHMS)


def verified_claims(token: str, keys: Sequence[jwt.PyJWK], expected: Expected) -> Mapping[str, Any]:
    """Return the claims of an id token that was issued for this sign-in.

    Raises:
        UnknownKey: it is signed by a key that is not among these.
        UntrustedToken: it is malformed, forged, expired, or issued for another sign-in.
    """
    try:
        key = _key_of(jwt.get_unverified_header(token), keys)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=expected.client_id,
            issuer=expected.issuer,
            leeway=LEEWAY_S,
            options={"require": _REQUIRED, "enforce_minimum_key_length": True},
        )
    except jwt.PyJWTError as error:
        raise UntrustedToken(f"{type(error).__name__}: {error}") from None
    _check_addressee(claims, expected.client_id)
    if claims.get("nonce") != expected.nonce:
        raise UntrustedToken("nonce is not that of this sign-in")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= _LONGEST:
        raise UntrustedToken(f"sub is not a text of 1 to {_LONGEST} characters")
    return claims


def identity_of(claims: Mapping[str, Any], *, trust_email: bool) -> Identity:
    """Return whom verified claims are about.

    Args:
        trust_email: believe addresses of which the provider does not say whether it has verified
            them; never those of which it says that it has not.
    """
    email = claims.get("email")
    is_verified = claims.get("email_verified", trust_email) is True
    if not (is_verified and isinstance(email, str) and is_email(email)):
        email = ""
    name = claims.get("name")
    plain = "".join(filter(str.isprintable, name)) if isinstance(name, str) else ""
    return Identity(claims["iss"], claims["sub"], email, plain[:_LONGEST])


def is_email(text: str) -> bool:
    """Return whether the text can be an e-mail address: one @, no spaces, 254 characters at most.

    Whether it is one, only a mail to it shows.
    """
    local, _, domain = text.rpartition("@")
    plain = text.isprintable() and not any(c.isspace() or c in '<>"(),:;\\' for c in text)
    return bool(local and domain) and plain and "@" not in local and len(text) <= 254


def _key_of(header: Mapping[str, Any], keys: Sequence[jwt.PyJWK]) -> jwt.PyJWK:
    """Return the key that a token names; one that names none has the only one of its kind."""
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise UntrustedToken(f"alg is {str(algorithm)[:40]!r}, not one of {', '.join(ALGORITHMS)}")
    kid = header.get("kid")
    fitting = [k for k in keys if k.algorithm_name == algorithm and kid in (None, k.key_id)]
    if not fitting:
        raise UnknownKey(f"the provider has no {algorithm} key {str(kid)[:80]!r}")
    if len(fitting) > 1:
        raise UntrustedToken("the token does not say by which of several keys it is signed")
    return fitting[0]


def _check_addressee(claims: Mapping[str, Any], client_id: str) -> None:
    """A token for several audiences is this client's only if it was issued to this client."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client_id) != client_id:
        raise UntrustedToken("azp is another client")

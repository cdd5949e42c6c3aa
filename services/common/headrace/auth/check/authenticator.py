"""Decides who calls, and whether this caller may. Pure.

    hr_8dFanMt4iD4_…            well formed → row of 8dFanMt4iD4 → digest → expiry → tenant
                                → networks of tenant and key → Caller
    headrace_session=…          same origin → row of its SHA-256 → expiry → tenant (→ key)
                                → networks → Caller
    either, then                the method's scope

What fails up to the tenant fails with one and the same InvalidApiKey, whose message says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from headrace.auth.caller import Caller
from headrace.auth.check.edge import Client
from headrace.auth.keys import key_id_of
from headrace.auth.networks import Networks, contains
from headrace.auth.peppers import PEPPER_BYTES, Peppers
from headrace.auth.scopes import ADMIN, ADMIN_READS, ANY_MODEL, PUBLIC, ROLE_SCOPES, SIGNED_IN
from headrace.auth.tables import Key, Session, Tenant
from headrace.errors import InvalidApiKey, PermissionDenied
from headrace.internal.v1.access_pb2 import KeyDigest
from headrace.v1.access_pb2 import Access

AUTHORIZATION, API_KEY, COOKIE = "authorization", "x-api-key", "cookie"
SECRET_HEADERS = frozenset({AUTHORIZATION, API_KEY, COOKIE})
"""Never logged and never passed on."""
SESSION_COOKIE = "headrace_session"
INCORRECT = "Incorrect API key provided."

_COOKIE = re.compile(rf"(?:^|[;,])\s*{SESSION_COOKIE}=\"?([^;,\"\s]*)")
"""In a cookie header. HTTP/2 may cut it into several, which gRPC joins by commas."""
_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
_ALL_MODELS = frozenset({ANY_MODEL})
_NOBODY = KeyDigest(digest=bytes(PEPPER_BYTES))
_MOST_DIGESTS = 2
"""A key has two from its rotation until the old secret ends."""


class Rows(Protocol):
    """The tables, as `AccessTables` has them."""

    def key(self, key_id: str) -> Key | None: ...

    def tenant(self, name: str) -> Tenant | None: ...

    def session(self, digest: str) -> Session | None: ...

    def was_revoked(self, key_id: str) -> bool: ...


class Rejected(Exception):
    """The call has no valid key or session; `reason` is for reports, never for callers."""

    def __init__(self, reason: str, key_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """As FailedAttempts has it; empty: the call has neither key nor session."""
        self.key_id = key_id


class OutsideNetworks(Rejected):
    """The key or session is valid, but not at this address."""

    def __init__(self, key_id: str, client: str) -> None:
        super().__init__("network", key_id)
        shown = client or "an unknown address"
        self.error = PermissionDenied(
            f"calls from {shown} are not allowed: it is in none of the networks that are listed"
            " for this tenant and this key"
        )


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call brings: a key, or the cookie of a session."""

    key: str = ""
    cookie: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str], *, same_origin: bool) -> Credentials:
        """Return the credentials; a cookie counts only from a page of the same origin.

        Raises:
            Rejected: they contradict one another, or are no API key.
        """
        scheme, _, bearer = headers.get(AUTHORIZATION, "").partition(" ")
        bearer, api_key = bearer.strip(), headers.get(API_KEY, "").strip()
        if scheme and (scheme.lower() != "bearer" or (api_key and api_key != bearer)):
            raise Rejected("malformed")
        key = bearer or api_key
        if key or scheme or not same_origin:
            return cls(key=key)
        cookies = set(_COOKIE.findall(headers.get(COOKIE, "")))
        if len(cookies) > 1:
            raise Rejected("session")
        return cls(cookie=next(iter(cookies), ""))


@dataclass(frozen=True, slots=True)
class Identified:
    """A caller, and what is to be reported of its key."""

    caller: Caller
    outdated: KeyDigest | None = None
    """The digest that the key has, where it is of an older pepper."""


class Authenticator:
    """Checks calls where keys are required."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def identify(
        self, credentials: Credentials, client: Client, peppers: Peppers, now_ms: int
    ) -> Identified:
        """Return the caller.

        Raises:
            Rejected: there is no valid key or session.
            OutsideNetworks: it may not be used from this address.
        """
        if credentials.key:
            return self._by_key(credentials.key, client, peppers, now_ms)
        if credentials.cookie:
            return Identified(self._by_cookie(credentials.cookie, client, now_ms))
        raise Rejected("")

    def _by_key(self, text: str, client: Client, peppers: Peppers, now_ms: int) -> Identified:
        if (key_id := key_id_of(text)) is None:
            raise Rejected("malformed")
        key = self._rows.key(key_id)
        # Why digests of nothing: how long a refusal takes must not say which ids exist, nor which
        # keys are being rotated.
        digests = key.digests if key else ()
        filling = (_NOBODY,) * (_MOST_DIGESTS - len(digests))
        digest = peppers.verify(text, (*digests, *filling), now_ms)
        if key is None or digest is None:
            raise Rejected("revoked" if self._rows.was_revoked(key_id) else "unknown", key_id)
        if _has_expired(key.expire_ms, now_ms):
            raise Rejected("expired", key_id)
        tenant = self._enabled(key.tenant, "revoked", key_id)
        _require_network(key_id, client, tenant.networks, key.networks)
        caller = Caller(
            key.tenant,
            *tenant.priorities,
            scopes=key.scopes,
            models=key.models,
            key_id=key_id,
            person=key.person,
            client=client.address,
            tenant_create_ms=tenant.row.create_ms,
        )
        return Identified(caller, digest if peppers.is_outdated(digest) else None)

    def _by_cookie(self, value: str, client: Client, now_ms: int) -> Caller:
        if not _COOKIE_VALUE.fullmatch(value):
            raise Rejected("session")
        session = self._rows.session(sha256(value.encode()).hexdigest())
        if session is None or _has_expired(session.row.expire_ms, now_ms):
            raise Rejected("session")
        row = session.row
        tenant = self._enabled(row.tenant, "session", row.key_id)
        scopes, models = ROLE_SCOPES.get(row.role, frozenset()), session.models or _ALL_MODELS
        networks = session.networks
        if row.key_id:
            key = self._opening_key(row.key_id, row.tenant, now_ms)
            # The key's, not the session's: what was taken from the key holds for its sessions.
            scopes, models, networks = key.scopes, key.models, key.networks
        _require_network(row.key_id, client, tenant.networks, networks)
        return Caller(
            row.tenant,
            *tenant.priorities,
            scopes=scopes,
            models=models,
            key_id=row.key_id,
            person=row.person,
            session_id=row.session_id,
            role=row.role,
            client=client.address,
            tenant_create_ms=tenant.row.create_ms,
        )

    def _opening_key(self, key_id: str, tenant: str, now_ms: int) -> Key:
        """Return the key that a session was opened with, which ends with it."""
        key = self._rows.key(key_id)
        if key is None or key.tenant != tenant or _has_expired(key.expire_ms, now_ms):
            raise Rejected("session", key_id)
        return key

    def _enabled(self, name: str, reason: str, key_id: str) -> Tenant:
        tenant = self._rows.tenant(name)
        if tenant is None or tenant.disabled:
            raise Rejected(reason, key_id)
        return tenant


def incorrect_key() -> InvalidApiKey:
    """Return the one error of every call without a valid key or session."""
    return InvalidApiKey(INCORRECT)


def authorize(caller: Caller, access: Access) -> None:
    """
    Raises:
        PermissionDenied: the caller may not call a method with this option.
    """
    scope = access.scope
    implied = ADMIN_READS if ADMIN in caller.scopes else frozenset()
    if scope not in (PUBLIC, SIGNED_IN) and scope not in caller.scopes | implied:
        raise PermissionDenied(f"this call needs the scope {scope}, which {_whose(caller)} lacks")
    if access.operator_only and not caller.is_operator:
        raise PermissionDenied(
            "this call is for administrators of the mesh: keys of the tenant headrace with the"
            " scope admin:*"
        )


def _whose(caller: Caller) -> str:
    return f"the role {caller.role}" if caller.role else "this key"


def _require_network(key_id: str, client: Client, *lists: Networks) -> None:
    if not all(contains(networks, client.address) for networks in lists):
        raise OutsideNetworks(key_id, client.address)


def _has_expired(expire_ms: int, now_ms: int) -> bool:
    return bool(expire_ms) and now_ms >= expire_ms

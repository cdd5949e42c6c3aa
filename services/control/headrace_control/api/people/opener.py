"""What every way to sign in has in common: the cookie, and what is refused."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256

from headrace.auth.check.authenticator import SESSION_COOKIE
from headrace.auth.check.failures import FailureLimiter
from headrace.errors import (
    FailedPrecondition,
    PermissionDenied,
    ResourceNotFound,
    TooManyFailedAttempts,
)
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.people.http_replies import header
from headrace_control.base.records import Actor, Session
from headrace_control.sign_in.cookies import session_cookie


@dataclass(frozen=True, slots=True)
class OpenedSession:
    session: Session
    cookie: str
    """Value of the header Set-Cookie."""


class SessionOpener:
    """Opens sessions for callers who have proved who they are."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._limiter = FailureLimiter(parts.settings.failed_attempts_per_minute)

    def require_sessions(self) -> None:
        """
        Raises:
            FailedPrecondition: this mesh requires no keys, so nobody has to sign in.
        """
        if not self._parts.access.requires_keys:
            raise FailedPrecondition(
                "this mesh requires no keys, so there are no sessions: start it with --auth keys"
            )

    def refuse_other_sites(self, context: Context) -> None:
        """Refuse what a page of another site had the browser send: it would sign the person in as
        somebody else, and read what this person then does.

        Raises:
            PermissionDenied: a browser sent it, and not for a page of this origin.
        """
        is_browser = header(context, "origin") or header(context, "sec-fetch-site")
        if is_browser and not self._parts.access.client(context).same_origin:
            raise PermissionDenied(
                "a page of another origin may not sign in: send the call from a page of this mesh,"
                " as JSON"
            )

    def is_secure(self, context: Context) -> bool:
        """Return whether the browser's cookies are for https only."""
        url = self._parts.settings.public_url
        is_https = header(context, "x-forwarded-proto") == "https"
        return url.startswith("https:") if url else is_https

    async def open(self, context: Context, session: Session) -> OpenedSession:
        """Open a session of this tenant, and person or key, for who has proved to be that.

        Raises:
            FailedPrecondition: what it is of has ended meanwhile.
        """
        value, now = secrets.token_urlsafe(32), self._parts.store.now()
        client = self._parts.access.client(context).address
        new = replace(
            session,
            digest=sha256(value.encode()).hexdigest(),
            client=client,
            expire_time=now + timedelta(seconds=self._parts.settings.session_s),
        )
        name = f"people/{session.person}" if session.person else ""
        by = Actor(name or f"tenants/{session.tenant}/keys/{session.key_id}", client)
        opened = await self._parts.store.sessions.create(new, by=by)
        until = opened.expire_time or now
        return OpenedSession(
            opened,
            session_cookie(
                SESSION_COOKIE,
                value,
                max_age_s=int((until - now).total_seconds()),
                secure=self.is_secure(context),
            ),
        )

    def cleared_cookie(self, context: Context) -> str:
        return session_cookie(SESSION_COOKIE, "", max_age_s=0, secure=self.is_secure(context))

    @contextmanager
    def counting_failures(self, context: Context) -> Iterator[None]:
        """Limit how often an address may fail within the `with` by what is not found.

        Raises:
            TooManyFailedAttempts: in place of ResourceNotFound, beyond the limit.
        """
        try:
            yield
        except ResourceNotFound:
            client = self._parts.access.client(context).address
            self.count_failure(client)
            raise

    def count_failure(self, client: str) -> None:
        """
        Raises:
            TooManyFailedAttempts: the address has failed too often lately.
        """
        wait_s = self._limiter.fail(client, self._parts.clock.monotonic_s())
        if wait_s is not None:
            raise TooManyFailedAttempts(
                f"too many failed attempts came from this address; retry in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )

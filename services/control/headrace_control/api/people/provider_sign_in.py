"""Sign-in through the OpenID provider: a redirect there, and what the browser comes back with."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable
from hmac import compare_digest
from typing import NoReturn

from google.api.httpbody_pb2 import HttpBody

from headrace.admin.v1 import sessions_pb2 as pb
from headrace.errors import (
    ControlUnavailable,
    HeadraceError,
    InvalidRequest,
    PermissionDenied,
    ResourceNotFound,
)
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.people.http_replies import Headers, header, send_page, send_redirect
from headrace_control.api.people.opener import SessionOpener
from headrace_control.base.records import BY_PROVIDER, Actor, Identity, Member, Session
from headrace_control.sign_in.cookies import (
    SIGN_IN_COOKIE,
    PendingSignIn,
    SignInSeal,
    begin_sign_in,
    cleared_sign_in_cookie,
    cookies_named,
    sign_in_cookie,
)
from headrace_control.sign_in.identity import UntrustedToken
from headrace_control.sign_in.provider import CodeRefused, OpenIdProvider, ProviderFailed
from headrace_control.sign_in.return_to import checked_return_to

log = logging.getLogger(__name__)

_RETRY_S = 5.0
_PURPOSE = "headrace: cookies of sign-ins under way"


class ProviderSignIn:
    """Answers with pages where a browser asks for one, else with errors of the API."""

    def __init__(self, parts: Parts, opener: SessionOpener) -> None:
        settings = parts.settings
        self._parts, self._opener = parts, opener
        self._provider = OpenIdProvider(settings, parts.clock) if settings.oidc_issuer else None
        peppers = parts.peppers
        # Why of the pepper: all processes of control open the cookies of one another.
        key = peppers.value().digest(_PURPOSE).digest if peppers else secrets.token_bytes(32)
        self._seal = SignInSeal(key)

    async def begin(self, request: pb.BeginSignInRequest, context: Context) -> HttpBody:
        try:
            provider = self._configured()
            self._opener.require_sessions()
            pending = begin_sign_in(checked_return_to(request.return_to))
            url = await self._asked(provider.authorization_url(pending))
        except HeadraceError as error:
            return await self._failed(context, error)
        sealed = self._seal.seal(pending, now_s=int(self._parts.clock.unix_s()))
        cookie = sign_in_cookie(sealed, secure=self._opener.is_secure(context))
        return await send_redirect(context, url, [("set-cookie", cookie)])

    async def finish(self, request: pb.FinishSignInRequest, context: Context) -> HttpBody:
        cleared = cleared_sign_in_cookie(secure=self._opener.is_secure(context))
        try:
            pending = self._begun(request, context)
            session = await self._signed_in(request, pending, context)
            opened = await self._opener.open(context, session)
        except HeadraceError as error:
            return await self._failed(context, error, [("set-cookie", cleared)])
        cookies = [("set-cookie", opened.cookie), ("set-cookie", cleared)]
        return await send_redirect(context, pending.return_to, cookies)

    def _configured(self) -> OpenIdProvider:
        if self._provider is None:
            raise ResourceNotFound(
                "sign-in through a provider is not configured here, which takes control's settings"
                " oidc_issuer, oidc_client_id and public_url; sign in with a key"
            )
        return self._provider

    async def _asked(self, url: Awaitable[str]) -> str:
        try:
            return await url
        except ProviderFailed as error:
            raise _unavailable(error) from error

    def _begun(self, request: pb.FinishSignInRequest, context: Context) -> PendingSignIn:
        """Return the sign-in that this browser has begun and the provider answers."""
        self._configured()
        now_s = int(self._parts.clock.unix_s())
        for sealed in cookies_named(SIGN_IN_COOKIE, header(context, "cookie")):
            pending = self._seal.open(sealed, now_s=now_s)
            if pending and compare_digest(pending.state.encode(), request.state.encode()):
                return pending
        raise InvalidRequest(
            "this sign-in was begun in another browser, more than ten minutes ago, or is finished:"
            " begin again"
        )

    async def _signed_in(
        self, request: pb.FinishSignInRequest, pending: PendingSignIn, context: Context
    ) -> Session:
        client = self._parts.access.client(context).address
        provider, issuer = self._configured(), self._parts.settings.oidc_issuer
        if request.error:
            words = f"{request.error} {request.error_description}".strip()[:200]
            raise PermissionDenied(f"the provider did not sign you in, it says: {words}")
        if request.iss and request.iss != issuer:
            await self._refuse(client, f"iss is {request.iss[:200]}, not {issuer}")
        try:
            identity = await provider.identity(request.code, pending)
        except ProviderFailed as error:
            raise _unavailable(error) from error
        except (CodeRefused, UntrustedToken) as error:
            await self._refuse(client, str(error))
        try:
            by, newcomers = Actor("system", client), self._newcomers(identity)
            person, tenants = await self._parts.store.sign_ins.admit(identity, newcomers, by=by)
        except PermissionDenied as error:
            await self._note(client, error.message)
            raise
        return Session("", "", tenants[0], person=person.person_id, opened_by=BY_PROVIDER)

    def _newcomers(self, identity: Identity) -> Member | None:
        """Return the membership that people of the address's domain get; None: there is none."""
        settings = self._parts.settings
        domain = identity.email.rpartition("@")[2].lower()
        if domain and domain in [each.lower() for each in settings.oidc_allowed_domains]:
            return Member(settings.oidc_default_tenant, "", settings.oidc_default_role)
        return None

    async def _refuse(self, client: str, why: str) -> NoReturn:
        await self._note(client, why)
        raise PermissionDenied(
            "what the provider answered does not prove who you are: begin again; if this repeats,"
            " control's log and audit say why"
        )

    async def _note(self, client: str, why: str) -> None:
        """Write a failed sign-in to the log and, within a limit for each address, to the audit."""
        log.warning("sign_in.refused", extra={"client": client, "why": why})
        self._opener.count_failure(client)
        await self._parts.store.audit.append(
            "sessions.refuse", "sessions", details={"why": why}, by=Actor("anonymous", client)
        )

    async def _failed(
        self, context: Context, error: HeadraceError, headers: Headers = ()
    ) -> HttpBody:
        if "text/html" not in header(context, "accept"):
            raise error
        status, message = error.code.http_status, f"{error.message}."
        return await send_page(context, status, "You are not signed in", message, headers)


def _unavailable(error: ProviderFailed) -> ControlUnavailable:
    log.warning("sign_in.provider_failed", extra={"why": str(error)})
    return ControlUnavailable(
        f"the OpenID provider cannot be used now: retry in {_RETRY_S:g} s, or sign in with a key",
        retry_after_s=_RETRY_S,
    )

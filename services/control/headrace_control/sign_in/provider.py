"""Calls to an OpenID provider: its configuration, its keys, and codes for id tokens.

Nothing that a provider sends is believed for its length or its time, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import httpx
import jwt

from headrace.clock import Clock
from headrace.credentials.secret_files import read_secret
from headrace_control.base.records import Identity
from headrace_control.base.sign_in_settings import SignInSettings, is_safe_url
from headrace_control.sign_in.cookies import PendingSignIn
from headrace_control.sign_in.identity import (
    Expected,
    UnknownKey,
    identity_of,
    signing_keys,
    verified_claims,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_SCOPES = "openid email profile"
_MAX_ANSWER_BYTES = 512 * 1024
_KEPT_S = 3600.0
"""How long the provider's configuration and keys are believed."""
_KEYS_AGAIN_S = 10.0
"""How soon the keys are read again because a token names one that is not known."""
_FAILED_S = 2.0
"""How long a failure is reported without trying again."""


class ProviderFailed(Exception):
    """The provider cannot be reached, or its answer cannot be used."""


class CodeRefused(Exception):
    """The provider gives no token for this code: it is forged, was redeemed before, or is late."""


@dataclass(frozen=True, slots=True)
class ProviderConfiguration:
    """The parts of the discovery document that are used."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    secret_in_body: bool
    """The provider takes the client's secret in the body of the call only."""


class _Kept(Generic[T]):
    """What was read of the provider last. Failing to read it anew leaves what there is."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._reading = clock, asyncio.Lock()
        self._value: T | None = None
        self._read_s = 0.0
        self._failed: ProviderFailed | None = None
        self._failed_s = 0.0

    async def get(self, read: Callable[[], Awaitable[T]], *, max_age_s: float) -> T:
        """Return what there is if it is no older than this, or else read it.

        Raises:
            ProviderFailed: it was never read, and cannot be.
        """
        async with self._reading:
            now_s = self._clock.monotonic_s()
            if self._value is not None and now_s - self._read_s < max_age_s:
                return self._value
            # Why not again at once: those who wait here would wait for a timeout each.
            if self._failed is None or now_s - self._failed_s >= _FAILED_S:
                try:
                    self._value, self._read_s, self._failed = await read(), now_s, None
                except ProviderFailed as error:
                    log.warning("sign_in.provider_failed", extra={"why": str(error)})
                    self._failed, self._failed_s = error, self._clock.monotonic_s()
            if self._value is None:
                raise self._failed or ProviderFailed("it was not read")
            return self._value


class OpenIdProvider:
    """The provider of the settings. A process has one, which keeps its configuration and keys."""

    def __init__(self, settings: SignInSettings, clock: Clock) -> None:
        """
        Raises:
            OSError: the file of the provider's authority cannot be read, or has no certificate.
        """
        self._settings, self._clock = settings, clock
        self._tls = ssl.create_default_context(cafile=settings.oidc_ca_file)
        if settings.oidc_ca_file is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        self._configuration = _Kept[ProviderConfiguration](clock)
        self._keys = _Kept[tuple[jwt.PyJWK, ...]](clock)

    async def authorization_url(self, pending: PendingSignIn) -> str:
        """Return where the browser signs in.

        Raises:
            ProviderFailed: the provider's configuration cannot be read.
        """
        endpoint = (await self._configured()).authorization_endpoint
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._settings.oidc_redirect_url,
            "scope": _SCOPES,
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": pending.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def identity(self, code: str, pending: PendingSignIn) -> Identity:
        """Return who has signed in, for the code that the browser came back with.

        Raises:
            ProviderFailed: the provider cannot be reached, or its answer cannot be used.
            CodeRefused: the provider does not accept the code.
            identity.UntrustedToken: its id token was not issued for this sign-in.
        """
        configuration = await self._configured()
        token = await self._redeem(configuration, code, pending.verifier)
        settings = self._settings
        expected = Expected(settings.oidc_issuer, settings.oidc_client_id, pending.nonce)
        keys = await self._current_keys(configuration, max_age_s=_KEPT_S)
        try:
            claims = verified_claims(token, keys, expected)
        except UnknownKey:
            keys = await self._current_keys(configuration, max_age_s=_KEYS_AGAIN_S)
            claims = verified_claims(token, keys, expected)
        return identity_of(claims, trust_email=settings.oidc_trust_email)

    async def _configured(self) -> ProviderConfiguration:
        issuer = self._settings.oidc_issuer

        async def read() -> ProviderConfiguration:
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            return _configuration_of(await self._json("GET", url), issuer)

        return await self._configuration.get(read, max_age_s=_KEPT_S)

    async def _current_keys(
        self, configuration: ProviderConfiguration, *, max_age_s: float
    ) -> tuple[jwt.PyJWK, ...]:
        async def read() -> tuple[jwt.PyJWK, ...]:
            return signing_keys(await self._json("GET", configuration.jwks_uri))

        return await self._keys.get(read, max_age_s=max_age_s)

    async def _redeem(self, configuration: ProviderConfiguration, code: str, verifier: str) -> str:
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": settings.oidc_redirect_url,
            "client_id": settings.oidc_client_id,
            "code_verifier": verifier,
        }
        auth = None
        if settings.oidc_client_secret_file is not None:
            secret = read_secret(settings.oidc_client_secret_file).decode()
            if configuration.secret_in_body:
                form["client_secret"] = secret
            else:
                # RFC 6749, section 2.3.1: both are escaped before they are put together.
                auth = httpx.BasicAuth(
                    quote(settings.oidc_client_id, safe=""), quote(secret, safe="")
                )
        answer = await self._json("POST", configuration.token_endpoint, data=form, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ProviderFailed("its answer has no id_token")
        return token

    async def _json(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        timeout_s = self._settings.oidc_timeout_s
        try:
            async with (
                asyncio.timeout(timeout_s),
                # Why no environment: a proxy of it would see the client's secret.
                httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout_s) as http,
                http.stream(method, url, **request) as response,
            ):
                content = await _limited(response)
        except (httpx.HTTPError, TimeoutError) as error:
            raise ProviderFailed(f"{url}: {str(error) or type(error).__name__}") from error
        if response.status_code != 200:
            code = _error_code(content)
            # Any other code is a fault of the settings, as invalid_client.
            kind = CodeRefused if code == "invalid_grant" else ProviderFailed
            raise kind(f"{url}: status {response.status_code}, error {code!r}")
        try:
            document = json.loads(content)
        except ValueError as error:
            raise ProviderFailed(f"{url}: the answer is not JSON") from error
        if not isinstance(document, dict):
            raise ProviderFailed(f"{url}: the answer is no JSON object")
        return document


async def _limited(response: httpx.Response) -> bytes:
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            raise ProviderFailed(f"{response.url}: more than {_MAX_ANSWER_BYTES} bytes")
    return content


def _error_code(content: bytes) -> str:
    """Return OAuth's code of an error, as invalid_grant or invalid_client, for the log."""
    try:
        return str(json.loads(content)["error"])[:80]
    except (ValueError, KeyError, TypeError):
        return ""


def _configuration_of(document: dict[str, Any], issuer: str) -> ProviderConfiguration:
    if document.get("issuer") != issuer:
        raise ProviderFailed(
            f"its configuration is of the issuer {str(document.get('issuer'))[:200]!r}; the setting"
            f" oidc_issuer is {issuer!r}, and both must be equal to the letter"
        )
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        if not isinstance(document.get(name), str) or not is_safe_url(document[name]):
            raise ProviderFailed(f"{name} of its configuration is no https URL")
    methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    return ProviderConfiguration(
        document["authorization_endpoint"],
        document["token_endpoint"],
        document["jwks_uri"],
        secret_in_body="client_secret_basic" not in methods and "client_secret_post" in methods,
    )

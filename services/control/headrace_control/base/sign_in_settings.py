"""Settings of sign-in and sessions: a part of control's settings."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from headrace.credentials.secret_files import check_secret_file
from headrace.settings import ServiceSettings

SignInRole = Literal["viewer", "member"]


class SignInSettings(ServiceSettings):
    """What the settings of control derive from."""

    public_url: str = ""
    """How browsers reach this mesh, as https://llm.example.com: OpenID providers send them back to
    it, and its scheme says whether cookies are for https only. Unset: sign-in by OpenID is off, and
    cookies are marked as secure where the call came by https."""
    session_s: float = Field(default=12 * 3600.0, ge=60, le=30 * 24 * 3600)
    """Life of a session, from sign-in; use does not prolong it. Too small: people sign in several
    times a day. Too large: a lost laptop stays signed in."""
    oidc_issuer: str = ""
    """Issuer of the OpenID provider that people sign in with, as https://login.example.com/realms/x;
    needs `oidc_client_id` and `public_url`. The client there needs the redirect URI
    <public_url>/v2/admin/oidc/callback. Unset: people sign in with keys only."""
    oidc_client_id: str = Field(default="", validate_default=True)
    """Name of this mesh at the provider."""
    oidc_client_secret_file: Path | None = None
    """File of the client's secret; unset for a public client, which has only PKCE. Only its owner
    may read it; it is read again for every sign-in."""
    oidc_ca_file: Path | None = None
    """Certificates, as PEM, of the authority that the provider's certificate is of. Unset: the
    public ones."""
    oidc_trust_email: bool = False
    """Take e-mail addresses for verified if the provider does not say, as Microsoft Entra. Safe
    only where every account of the provider is of your organisation: elsewhere people may give
    another person's address as their own. Addresses that are said to be unverified are never
    taken."""
    oidc_allowed_domains: tuple[str, ...] = ()
    """Domains of e-mail addresses, as JSON, ["example.com"], whose people get an account at their
    first sign-in, as members of `oidc_default_tenant`. Empty: only people who were invited, or whom
    an administrator made."""
    oidc_default_tenant: str = "default"
    """Tenant of those people."""
    oidc_default_role: SignInRole = "viewer"
    """Their role there: viewer or member. Administrators are made by administrators."""
    oidc_timeout_s: float = Field(default=10.0, gt=0, le=60)
    """Longest that one answer of the provider may take. Too small: sign-ins fail while it is slow.
    Too large: a browser waits as long for a provider that is down."""

    @field_validator("public_url")
    @classmethod
    def _public(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (not is_safe_url(url) or parts.path not in ("", "/") or parts.query):
            raise ValueError("must be https://host or https://host:port, http only on loopback")
        return url.rstrip("/")

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, url: str) -> str:
        if url and (not is_safe_url(url) or urlsplit(url).query):
            raise ValueError("must be an https URL without a query, http only on loopback")
        return url

    @field_validator("oidc_client_secret_file")
    @classmethod
    def _client_secret(cls, path: Path | None) -> Path | None:
        if path is not None:
            check_secret_file(path)
        return path

    @field_validator("oidc_client_id")
    @classmethod
    def _complete(cls, client_id: str, info: ValidationInfo) -> str:
        if info.data.get("oidc_issuer") and not client_id:
            raise ValueError("oidc_issuer is set, which needs this setting")
        if client_id and not info.data.get("public_url"):
            raise ValueError("needs public_url too: the provider sends browsers back there")
        return client_id

    @property
    def oidc_redirect_url(self) -> str:
        return f"{self.public_url}/v2/admin/oidc/callback"


def is_safe_url(url: str) -> bool:
    """Return whether secrets may be sent to a URL: it is of https, or of this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment or not url.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

"""Settings of every service that answers callers: whether they need keys, and the secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from headrace.credentials.loopback import is_loopback
from headrace.credentials.secret_files import check_secret_file
from headrace.settings import ServiceSettings


class AccessSettings(ServiceSettings):
    """What the settings of gateways and of control derive from."""

    auth: Literal["none", "keys"] = "none"
    """none: whoever reaches the port may do everything, which is for loopback; elsewhere it needs
    `insecure`. keys: every call needs an API key or the cookie of a session. The same for all
    gateways and control."""
    peppers_file: Path | None = Field(default=None, validate_default=True)
    """File of the peppers that digests of keys are made with, a line `<id> <base64 of 32 bytes>`
    each, the current one first; `auth` keys needs it. The same for all processes of a mesh, and
    kept apart from the database, whose digests are of no use without it. Only its owner may
    read it; a changed file is read again."""
    edge_secret_file: Path | None = None
    """File of the secret by which Envoy proves that a call came through it. Without the file, or
    without its content in a call, the client's address is that of the connection, and cookies are
    refused. Only its owner may read it; a changed file is read again."""

    failed_attempts_per_minute: int = Field(default=20, gt=0)
    """Calls with an invalid key or cookie that one client address, of IPv6 one /64, may send; more
    are refused with 429. Calls with a valid key are never refused for it. Too small: people behind
    one address wait after a few mistyped keys. Too large: keys can be tried faster, and reports to
    control grow."""

    @model_validator(mode="after")
    def _admits_no_strangers(self) -> Self:
        if self.auth == "keys" or self.insecure or is_loopback(self.host):
            return self
        raise ValueError(
            f"host {self.host} is reached from other machines, and auth is none: whoever comes "
            "there, also through Envoy, may do everything; set auth to keys, or else insecure"
        )

    @field_validator("auth", mode="before")
    @classmethod
    def _auth(cls, auth: object) -> object:
        # Flags and environment say None by the word that is a value here.
        return "none" if auth is None else auth

    @field_validator("peppers_file", "edge_secret_file")
    @classmethod
    def _secret(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None:
            check_secret_file(path)
        elif info.field_name == "peppers_file" and info.data.get("auth") == "keys":
            raise ValueError("auth is keys, which needs this file")
        return path

"""Who this process is to the broker: its certificate, its user and its password."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors

from headrace.bus import BusUnavailable
from headrace.bus.subjects import inbox_prefix
from headrace.credentials.secret_files import InsecureSecretFile, SecretFile
from headrace.credentials.tls_files import CurrentContext, TlsFiles


class BrokerAccess:
    """Certificate, user and password, each read again for every connection that is made.

    Args:
        tls: None leaves it to the broker whether the connection is encrypted.
        credentials_file: None takes user and password of the URL, if it has them.

    Raises:
        BusUnavailable: the credentials cannot be read.
    """

    def __init__(self, url: str, *, tls: TlsFiles | None, credentials_file: Path | None) -> None:
        self._tls = tls
        self._file: SecretFile[tuple[str, str]] | None = None
        try:
            if credentials_file is not None:
                self._file = SecretFile(credentials_file, _user_and_password)
        except InsecureSecretFile as error:
            raise BusUnavailable(str(error)) from error
        self._of_url = _user_of_url(url)
        self._is_encrypted = False

    def options(self) -> dict[str, Any]:
        """Return the arguments of the client's `connect`."""
        found: dict[str, Any] = {}
        if self._tls is not None:
            found["tls"] = CurrentContext(self._tls, self._on_handshake)
        if self._tls is not None or self._file is not None:
            # The client calls these for each connection, once it is encrypted, if it is to be.
            found |= {"user": self._user, "password": lambda: self._credentials()[1]}
        if self._file is not None:
            found["inbox_prefix"] = inbox_prefix(self._file.value()[0])
        return found

    def _on_handshake(self) -> None:
        self._is_encrypted = True

    def _user(self) -> str | None:
        if self._tls is not None and not self._is_encrypted:
            # Why: the client goes on in plain text where the broker does not ask for TLS, and so
            # would whoever sits between the two.
            raise nats.errors.Error("it does not offer TLS, which tls_ca_file requires")
        self._is_encrypted = False
        return self._credentials()[0]

    def _credentials(self) -> tuple[str | None, str | None]:
        return self._of_url if self._file is None else self._file.value()


def _user_and_password(content: bytes) -> tuple[str, str]:
    user, colon, password = content.decode("utf-8").partition(":")
    if not user or not colon or not password or "\n" in password:
        raise ValueError("it is not one line user:password")
    return user, password


def _user_of_url(urls: str) -> tuple[str | None, str | None]:
    """Return user and password of the first URL that has them."""
    for url in urls.split(","):
        parts = urlsplit(url)
        if parts.username is not None:
            return unquote(parts.username), unquote(parts.password or "")
    return None, None

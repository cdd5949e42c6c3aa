"""Secrets of webhooks, encrypted for the database under keys that it does not have. Pure.

The file of the keys has one Fernet key a line, the current one first; the others are of secrets
that are not encrypted again yet. To rotate: put a new line before the others, restart control,
which encrypts all secrets again, and remove the old line.
"""

from __future__ import annotations

import base64
import secrets

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

PREFIX = "whsec_"
_SECRET_BYTES = 32


class UnknownSealingKey(Exception):
    """A secret was encrypted under a key that the file does not have."""


class SecretSealer:
    """Encrypts and decrypts secrets of webhooks."""

    def __init__(self, keys: list[bytes]) -> None:
        """`keys`: the current one first; at least one."""
        self._current = Fernet(keys[0])
        self._all = MultiFernet([Fernet(key) for key in keys])

    @classmethod
    def parse(cls, content: bytes) -> SecretSealer:
        """Read the content of a file of keys.

        Raises:
            ValueError: a line is no key, or there is none. The message has no part of a key.
        """
        lines = [line.strip() for line in content.splitlines() if line.strip()]
        for number, line in enumerate(lines, 1):
            try:
                Fernet(line)
            except ValueError:
                raise ValueError(
                    f"line {number} is no Fernet key: 32 random bytes in URL-safe base64"
                ) from None
        if not lines:
            raise ValueError("there is no key")
        return cls(lines)

    def seal(self, secret: str) -> str:
        return self._current.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Return the secret.

        Raises:
            UnknownSealingKey: its key is not in the file, or it was altered.
        """
        try:
            return self._all.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise UnknownSealingKey(
                "a webhook secret cannot be decrypted: the file of webhook_keys_file lacks the key"
                " that it was encrypted with; put that line back, or rotate the endpoint's secret"
            ) from None

    def seal_again(self, sealed: str) -> str:
        """Return the secret under the current key; as it is if it is so or its key is unknown."""
        try:
            self._current.decrypt(sealed.encode())
        except InvalidToken:
            try:
                return self._all.rotate(sealed.encode()).decode()
            except InvalidToken:
                pass
        return sealed


def new_secret() -> str:
    """Return a new secret, as Standard Webhooks writes one: whsec_ and base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()

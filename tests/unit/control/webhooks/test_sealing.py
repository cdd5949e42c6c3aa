"""Secrets of webhooks are encrypted under keys that can be rotated."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from headrace_control.webhooks.sealing import SecretSealer, UnknownSealingKey, new_secret

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()


def test_a_sealed_secret_shows_nothing_and_opens_again() -> None:
    secret, sealer = new_secret(), SecretSealer.parse(OLD + b"\n")
    sealed = sealer.seal(secret)
    assert secret not in sealed
    assert sealer.open(sealed) == secret


def test_after_a_rotation_the_old_key_may_go() -> None:
    secret = new_secret()
    sealed = SecretSealer.parse(OLD).seal(secret)
    both, new = SecretSealer.parse(NEW + b"\n" + OLD), SecretSealer.parse(NEW)
    with pytest.raises(UnknownSealingKey, match="webhook_keys_file"):
        new.open(sealed)
    again = both.seal_again(sealed)
    assert new.open(again) == secret
    assert both.seal_again(again) == again
    # Of an unknown key, nothing can be made; it stays.
    assert new.seal_again(sealed) == sealed


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"word", pytest.param(OLD + b"\nshort", id="a key and a word")]
)
def test_a_file_that_has_no_keys_is_refused_without_its_content(content: bytes) -> None:
    with pytest.raises(ValueError, match="key") as refused:
        SecretSealer.parse(content)
    assert "short" not in str(refused.value)

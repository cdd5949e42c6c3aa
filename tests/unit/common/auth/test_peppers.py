"""Digests of keys, and the rotation of what they are made with."""

from __future__ import annotations

import base64
import re

import pytest

from headrace.auth.keys import new_key
from headrace.auth.peppers import Peppers
from headrace.internal.v1.access_pb2 import KeyDigest

OLD = Peppers({"old": b"o" * 32})
ROTATED = Peppers({"new": b"n" * 32, "old": b"o" * 32})
NEW = Peppers({"new": b"n" * 32})


def line(pepper_id: str, pepper: bytes) -> bytes:
    return pepper_id.encode() + b" " + base64.b64encode(pepper) + b"\n"


def test_a_digest_is_of_its_key_alone() -> None:
    key = new_key()
    digest = OLD.digest(key)
    assert OLD.verify(key, [digest], 0) == digest
    assert OLD.verify(new_key(), [digest], 0) is None


def test_the_digest_does_not_contain_the_key() -> None:
    key = new_key()
    assert key[15:].encode() not in OLD.digest(key).SerializeToString()


def test_a_digest_of_an_older_pepper_is_valid_and_is_to_be_made_anew() -> None:
    key = new_key()
    old = OLD.digest(key)
    assert ROTATED.verify(key, [old], 0) == old
    assert ROTATED.is_outdated(old)
    assert not ROTATED.is_outdated(ROTATED.digest(key))
    assert NEW.verify(key, [ROTATED.digest(key)], 0) is not None


def test_a_digest_whose_pepper_is_gone_fits_no_key() -> None:
    key = new_key()
    assert NEW.verify(key, [OLD.digest(key)], 0) is None
    forged = KeyDigest(digest=NEW.digest(key).digest, pepper_id="old")
    assert NEW.verify(key, [forged], 0) is None


def test_both_secrets_of_a_rotated_key_are_valid_until_the_older_one_expires() -> None:
    older, newer = new_key("8dFanMt4iD4"), new_key("8dFanMt4iD4")
    until = OLD.digest(older)
    until.expire_ms = 1000
    digests = [OLD.digest(newer), until]
    for now_ms, is_valid in ((999, True), (1000, False), (2000, False)):
        assert OLD.verify(newer, digests, now_ms) is not None
        assert (OLD.verify(older, digests, now_ms) is not None) is is_valid


def test_the_first_line_of_the_file_is_the_current_pepper() -> None:
    peppers = Peppers.parse(line("new", b"n" * 32) + b"\n" + line("old", b"o" * 32))
    key = new_key()
    assert peppers.current == "new"
    assert peppers.verify(key, [OLD.digest(key)], 0) is not None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "there is no pepper"),
        (line("a", b"x" * 31), "line 1: the pepper has 31 bytes; it must have 32"),
        (b"a !!!", "line 1: what follows the id is not base64"),
        (line("a", b"x" * 32) + line("a", b"y" * 32), "line 2 has the id a of a line before it"),
        (line("a b", b"x" * 32), "line 1: what follows the id is not base64"),
        (line("\xe4", b"x" * 32), "line 1: the id must be 1 to 64 of A-Z a-z 0-9 . _ -"),
    ],
)
def test_a_malformed_file_is_refused_and_its_secrets_are_not_quoted(
    content: bytes, error: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        Peppers.parse(content)

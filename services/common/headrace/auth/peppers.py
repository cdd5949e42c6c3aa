"""Digests of keys: HMAC-SHA256 under a pepper, which the database does not have. Pure.

The file of the peppers, the current one first; the others are those of digests that are still in
the tables. To rotate: put a new line before the others, wait until every key has been used or the
keys that were not may be given up, and remove the old line.

    2027a 3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=
    2026b AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from headrace.internal.v1.access_pb2 import KeyDigest

PEPPER_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Peppers:
    """The peppers of a mesh."""

    def __init__(self, by_id: Mapping[str, bytes]) -> None:
        """`by_id`: the current one first; at least one."""
        self._by_id = MappingProxyType(dict(by_id))
        self.current = next(iter(self._by_id))
        """Id of the pepper that new digests are made with."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._by_id)

    @classmethod
    def parse(cls, content: bytes) -> Peppers:
        """Read the content of a peppers file.

        Raises:
            ValueError: a line is malformed, an id occurs twice, or there is no line. The message
                has no part of a pepper.
        """
        found: dict[str, bytes] = {}
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            pepper_id, pepper = _parse_line(number, line)
            if pepper_id in found:
                raise ValueError(f"line {number} has the id {pepper_id} of a line before it")
            found[pepper_id] = pepper
        if not found:
            raise ValueError("there is no pepper")
        return cls(found)

    def digest(self, key: str) -> KeyDigest:
        """Return the key's digest under the current pepper."""
        return KeyDigest(
            digest=hmac.digest(self._by_id[self.current], key.encode(), "sha256"),
            pepper_id=self.current,
        )

    def verify(self, key: str, digests: Iterable[KeyDigest], now_ms: int) -> KeyDigest | None:
        """Return the digest that is the key's and has not expired; None if there is none.

        The time that it takes depends on the number of digests only. A digest whose pepper is not
        known here, as one that was removed, fits no key.
        """
        found = None
        secret = key.encode()
        for each in digests:
            known = self._by_id.get(each.pepper_id)
            # Why for unknown ones too: how long a refusal takes must not depend on the peppers.
            made = hmac.digest(known or self._by_id[self.current], secret, "sha256")
            is_equal = hmac.compare_digest(made, each.digest)
            is_valid = not each.expire_ms or now_ms < each.expire_ms
            if is_equal and is_valid and known is not None and found is None:
                found = each
        return found

    def is_outdated(self, digest: KeyDigest) -> bool:
        """Return whether the digest is to be made anew, under the current pepper."""
        return digest.pepper_id != self.current


def _parse_line(number: int, line: str) -> tuple[str, bytes]:
    pepper_id, _, encoded = line.strip().partition(" ")
    if not _ID.fullmatch(pepper_id):
        raise ValueError(f"line {number}: the id must be 1 to 64 of A-Z a-z 0-9 . _ -")
    try:
        pepper = base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        raise ValueError(f"line {number}: what follows the id is not base64") from None
    if len(pepper) != PEPPER_BYTES:
        raise ValueError(
            f"line {number}: the pepper has {len(pepper)} bytes; it must have {PEPPER_BYTES}"
        )
    return pepper_id, pepper

"""Which reservations were settled lately: a usage record that comes twice counts once. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from hashlib import blake2b

from headrace.internal.v1.quota_pb2 import SettledReservations

KEPT_S = 600
MIN_KEPT = 10_000
"""Whatever their age. Why: a leader that died before it had removed a request's message has a
successor that publishes the record again, as soon as there is one."""
MAX_KEPT = 100_000


class SettledIds:
    """Of the last `KEPT_S`; `MIN_KEPT` at least, `MAX_KEPT` at most. Of each id, 64 bits."""

    def __init__(self) -> None:
        self._digests: set[int] = set()
        self._seconds: deque[tuple[int, deque[int]]] = deque()

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, reservation_id: str) -> bool:
        return _digest(reservation_id) in self._digests

    def add(self, reservation_id: str, second: int) -> None:
        """Seconds never fall."""
        self._add(_digest(reservation_id), second)

    def drop_old(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] < second - KEPT_S:
            if len(self._digests) - len(self._seconds[0][1]) < MIN_KEPT:
                return
            self._digests.difference_update(self._seconds.popleft()[1])

    def store(self) -> Iterator[SettledReservations]:
        for second, digests in self._seconds:
            yield SettledReservations(second=second, digests=digests)

    def load(self, stored: SettledReservations) -> None:
        for digest in stored.digests:
            self._add(digest, stored.second)

    def _add(self, digest: int, second: int) -> None:
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, deque()))
        self._seconds[-1][1].append(digest)
        self._digests.add(digest)
        if len(self._digests) > MAX_KEPT:
            oldest = self._seconds[0][1]
            self._digests.discard(oldest.popleft())
            if not oldest:
                self._seconds.popleft()


def _digest(reservation_id: str) -> int:
    return int.from_bytes(blake2b(reservation_id.encode(), digest_size=8).digest())

"""Attempts without a valid key or session: how many an address has, and what is reported. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from headrace.auth.networks import client_group
from headrace.internal.v1.access_pb2 import FailedAttempts

PER_MINUTE = 20
MAX_CLIENTS = 10_000
MAX_ENTRIES = 1000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class FailureLimiter:
    """A token bucket of failed attempts for each client address.

    It is taken from by failed attempts only: a call with a valid key is never refused for those of
    others behind the same address. Of more than `max_clients` addresses, those that failed least
    recently are forgotten.
    """

    def __init__(self, per_minute: int = PER_MINUTE, max_clients: int = MAX_CLIENTS) -> None:
        self._per_minute, self._max_clients = per_minute, max_clients
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def fail(self, client: str, now_s: float) -> float | None:
        """Count a failed attempt. Return None within the limit, else seconds until the next may."""
        group, rate = client_group(client), self._per_minute / 60
        bucket = self._buckets.pop(group, None) or _Bucket(self._per_minute, now_s)
        self._buckets[group] = bucket
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        elapsed_s = max(0.0, now_s - bucket.at_s)
        bucket.tokens = min(self._per_minute, bucket.tokens + elapsed_s * rate)
        bucket.at_s = now_s
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / rate
        bucket.tokens -= 1
        return None


class FailureLog:
    """Failed attempts since the last report, counted by client, reason and key.

    Beyond `max_entries` of them, attempts are counted for their reason alone.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: dict[tuple[str, str, str], FailedAttempts] = {}

    def add(self, client: str, reason: str, key_id: str, now_ms: int) -> None:
        entry = self._entries.get((client, reason, key_id))
        if entry is None:
            if len(self._entries) >= self._max_entries:
                client = key_id = ""
            entry = self._entries.setdefault(
                (client, reason, key_id),
                FailedAttempts(client=client, reason=reason, key_id=key_id, first_ms=now_ms),
            )
        entry.count += 1
        entry.last_ms = now_ms

    def take(self) -> list[FailedAttempts]:
        """Return the entries, and begin anew."""
        entries, self._entries = list(self._entries.values()), {}
        return entries

"""A cache in memory that is bounded in bytes and in time. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

OVERHEAD_BYTES = 200
"""Of an entry, besides its value."""


class _Entry(NamedTuple, Generic[V]):
    group: str
    value: V
    size: int
    ends_s: float


class BoundedCache(Generic[K, V]):
    """The entries that were used last, as many as fit. Entries of one group go together."""

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self._max_bytes, self._ttl_s = max_bytes, ttl_s
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self.stored_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def has(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K, now_s: float) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now_s >= entry.ends_s:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: K, value: V, size: int, *, group: str, now_s: float) -> None:
        """Store a value of so many bytes; what was used longest ago goes for it. A value that is
        larger than all of the cache is not stored."""
        self._remove(key)
        size += OVERHEAD_BYTES
        if size > self._max_bytes:
            return
        self._entries[key] = _Entry(group, value, size, now_s + self._ttl_s)
        self.stored_bytes += size
        while self.stored_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def remove_group(self, group: str) -> None:
        for key in [key for key, entry in self._entries.items() if entry.group == group]:
            self._remove(key)

    def _remove(self, key: K) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.stored_bytes -= entry.size

    def check_integrity(self) -> None:
        assert self.stored_bytes == sum(entry.size for entry in self._entries.values())
        assert self.stored_bytes <= self._max_bytes

"""A priority queue of ids by time whose entries are removed lazily.

Removing an entry from the middle of a heap means searching for it. Instead `remove` only forgets
the id's time, and an entry whose time no longer matches is dropped when it comes to the top.
For example:

    heap.put("a", 3.0)       # heap [(3, a)]           times {a: 3}
    heap.put("b", 5.0)       # heap [(3, a), (5, b)]   times {a: 3, b: 5}
    heap.put("a", 8.0)       # heap [(3, a), (5, b), (8, a)]   times {a: 8, b: 5}
    heap.first_s             # 5.0: the entry (3, a) no longer matches and is dropped
    heap.remove("b")         # times {a: 8}
    list(heap.pop_until(9))  # ["a"]
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

SLACK = 1000
NEVER = float("inf")


class LazyHeap:
    """Bounded by twice the ids in it, and `SLACK` entries: at that bound it is built anew."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._times: dict[str, float] = {}

    def __len__(self) -> int:
        """Return the number of entries, those still to be dropped included."""
        return len(self._heap)

    def time_s(self, key: str) -> float:
        """Return the time of an id; infinity if it is not there."""
        return self._times.get(key, NEVER)

    def put(self, key: str, at_s: float) -> None:
        """Add an id, or replace its time."""
        self._times[key] = at_s
        heapq.heappush(self._heap, (at_s, key))
        if len(self._heap) > SLACK + 2 * len(self._times):
            self._heap = [(at_s, key) for key, at_s in self._times.items()]
            heapq.heapify(self._heap)

    def remove(self, key: str) -> None:
        """Remove an id; one that is not there is fine."""
        self._times.pop(key, None)

    @property
    def first_s(self) -> float:
        """The earliest time; infinity if there is none."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER

    def pop_until(self, now_s: float) -> Iterator[str]:
        """Remove and yield the ids whose time has come; ids may be put and removed meanwhile."""
        while self.first_s <= now_s:
            _, key = heapq.heappop(self._heap)
            del self._times[key]
            yield key

    def check_integrity(self, keys: set[str]) -> None:
        """Raise AssertionError unless exactly these ids are in it."""
        assert self._times.keys() == keys
        assert {(at_s, key) for key, at_s in self._times.items()} <= set(self._heap)

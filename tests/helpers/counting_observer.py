"""A journal of the scheduler's that counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class CountingObserver:
    """Counts what happened, by name and cause."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def moved(self, priority: str, before: str, after: str) -> None:
        self.counts[f"{before} to {after}"] += 1

    def submitted(self, priority: str) -> None:
        self.counts["submitted"] += 1

    def dispatched(self, worker_id: str, waits_s: Sequence[tuple[str, float]]) -> None:
        self.counts["dispatched"] += len(waits_s)

    def prefix_held(self, priority: str, tokens: int) -> None:
        self.counts["prefix held"] += 1
        self.counts["prefix tokens"] += tokens

    def returned(self, priority: str, cause: str, request_id: str) -> None:
        self.counts[f"returned: {cause}"] += 1

    def preempted(self, priority: str, request_id: str) -> None:
        self.counts["preempted"] += 1

    def adopted(self, priority: str, request_id: str) -> None:
        self.counts["adopted"] += 1

    def orphaned(self, priority: str, cause: str, request_id: str) -> None:
        self.counts[f"orphaned: {cause}"] += 1

    def ended(self, priority: str, reason: str, request_id: str) -> None:
        self.counts[f"ended: {reason}"] += 1

    def settled(self, priority: str, code: int) -> None:
        self.counts["settled"] += 1

    def abandoned(self, priority: str, cause: str, request_id: str) -> None:
        self.counts[f"abandoned: {cause}"] += 1

    def worker_lost(self, worker_id: str, requests: int) -> None:
        self.counts["worker lost"] += 1

    def ignored(self, what: str) -> None:
        self.counts[f"ignored: {what}"] += 1

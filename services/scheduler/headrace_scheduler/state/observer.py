"""What a state machine reports of itself, for metrics and logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StateObserver(Protocol):
    """Is called at every change of state, once. `priority` is the request's lane."""

    def moved(self, priority: str, before: str, after: str) -> None:
        """A request changed its state; it begins as "new" and ends as "gone"."""
        ...

    def submitted(self, priority: str) -> None: ...

    def dispatched(self, worker_id: str, waits_s: Sequence[tuple[str, float]]) -> None:
        """A batch was dispatched: the priority and time in the lane of each of its requests."""
        ...

    def prefix_held(self, priority: str, tokens: int) -> None:
        """A request was dispatched to the worker that holds this much of its prompt."""
        ...

    def returned(self, priority: str, cause: str, request_id: str) -> None:
        """An attempt stopped before its end: cause is lost, parked, failed, full and the like."""
        ...

    def preempted(self, priority: str, request_id: str) -> None:
        """Its worker was requested to park it for a more urgent request."""
        ...

    def adopted(self, priority: str, request_id: str) -> None:
        """It was found running; another leader dispatched it."""
        ...

    def orphaned(self, priority: str, cause: str, request_id: str) -> None:
        """Its gateway is gone; it waits for another."""
        ...

    def ended(self, priority: str, reason: str, request_id: str) -> None:
        """It ended without a worker; `reason` is one of headrace.errors."""
        ...

    def settled(self, priority: str, code: int) -> None: ...

    def abandoned(self, priority: str, cause: str, request_id: str) -> None:
        """It was given up: no client waits for it."""
        ...

    def worker_lost(self, worker_id: str, requests: int) -> None: ...

    def ignored(self, what: str) -> None:
        """A message was late, repeated or of a former leadership."""
        ...

"""What a state machine reports of itself, for metrics and logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StateObserver(Protocol):
    """Hears every change of state, once; for metrics and logs. `priority` is the request's lane."""

    def moved(self, priority: str, before: str, after: str) -> None:
        """From state to state, as `live` names them; a request begins as "new" and ends "gone"."""
        ...

    def submitted(self, priority: str) -> None: ...

    def dispatched(self, worker_id: str, waits_s: Sequence[tuple[str, float]]) -> None:
        """A batch left: priority and time in the lane of each of its requests."""
        ...

    def prefix_held(self, priority: str, tokens: int) -> None:
        """A request left for the worker that holds so much of its prompt."""
        ...

    def returned(self, priority: str, cause: str, request_id: str) -> None:
        """It ran, or was to run, and did not end: cause is lost, parked, failed, full, ..."""
        ...

    def preempted(self, priority: str, request_id: str) -> None:
        """Its worker was asked to park it for a more urgent one."""
        ...

    def adopted(self, priority: str, request_id: str) -> None:
        """Found running; another leader dispatched it."""
        ...

    def orphaned(self, priority: str, cause: str, request_id: str) -> None:
        """Its gateway is gone; it waits for its reader to come to another."""
        ...

    def ended(self, priority: str, reason: str, request_id: str) -> None:
        """Ended without a worker; `reason` as in headrace.errors."""
        ...

    def settled(self, priority: str, code: int) -> None: ...

    def abandoned(self, priority: str, cause: str, request_id: str) -> None:
        """Nobody waits for it any more."""
        ...

    def worker_lost(self, worker_id: str, requests: int) -> None: ...

    def ignored(self, what: str) -> None:
        """A message that says nothing new, or nothing of today."""
        ...

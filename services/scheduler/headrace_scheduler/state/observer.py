"""What a state machine reports of itself, for metrics and logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from headrace_scheduler.request.live_request import Request

Happening = Literal["returned", "preempted", "adopted", "orphaned", "ended", "abandoned"]
"""
returned: an attempt stopped before its end; the cause is lost, parked, failed, full and the like.
preempted: the worker was requested to park it for a more urgent request.
adopted: it was found running; another leader dispatched it.
orphaned: its gateway is gone; it waits for another.
ended: it ended without a worker; the cause is a reason of headrace.errors.
abandoned: it was given up; no client waits for it.
"""


class StateObserver(Protocol):
    """Is called at every change of state, once."""

    def moved(self, request: Request, before: str, after: str) -> None:
        """A request changed its state; it begins as "new" and ends as "gone"."""
        ...

    def happened(self, what: Happening, request: Request, cause: str) -> None: ...

    def dispatched(self, worker_id: str, batch: Sequence[Request], now_s: float) -> None:
        """A batch is dispatched; its requests have waited since their `queued_s`."""
        ...

    def prefix_held(self, request: Request, tokens: int) -> None:
        """A request was dispatched to the worker that holds this much of its prompt."""
        ...

    def settled(self, request: Request, code: int) -> None: ...

    def worker_lost(self, worker_id: str, requests: int) -> None: ...

    def ignored(self, what: str) -> None:
        """A message was late, repeated or of a former leadership."""
        ...

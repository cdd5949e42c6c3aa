"""When to look at which request again."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from headrace_scheduler.requests import Request

SLACK = 1000


class Agenda:
    """Appointments of live requests; bounded by these, whatever their deadlines."""

    def __init__(self, requests: Mapping[str, Request]) -> None:
        """`requests`: those that live, by id; the agenda looks, and does not change them."""
        self._requests = requests
        self._due: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def appoint(self, request: Request, due_s: float) -> None:
        if due_s < request.due_s:
            request.due_s = due_s
            heapq.heappush(self._due, (due_s, request.request_id))
            if len(self._due) > SLACK + 2 * len(self._requests):
                self._tidy()

    def _tidy(self) -> None:
        """Drop the appointments of requests that have left long before their deadline."""
        never = float("inf")
        live = self._requests.items()
        self._due = [(r.due_s, request_id) for request_id, r in live if r.due_s < never]
        heapq.heapify(self._due)

    @property
    def next_due_s(self) -> float:
        return self._due[0][0] if self._due else float("inf")

    def take_due(self, now_s: float) -> Iterator[Request]:
        while self._due and self._due[0][0] <= now_s:
            due_s, request_id = heapq.heappop(self._due)
            request = self._requests.get(request_id)
            if request is not None and request.due_s == due_s:
                request.due_s = float("inf")
                yield request

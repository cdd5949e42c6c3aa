"""When each live request is to be looked at again, if nothing happens to it before."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from headrace_scheduler.request.live_request import Request

SLACK = 1000


class Timers:
    """Appointments with live requests; bounded by these, whatever their deadlines."""

    def __init__(self, live: Mapping[str, Request]) -> None:
        self._live = live
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def schedule(self, request: Request, due_s: float) -> None:
        """See the request again no later than `due_s`."""
        if due_s < request.due_s:
            request.due_s = due_s
            heapq.heappush(self._heap, (due_s, request.request_id))
            if len(self._heap) > SLACK + 2 * len(self._live):
                self._tidy()

    def _tidy(self) -> None:
        """Drop the appointments of requests that have left long before their deadline."""
        never = float("inf")
        self._heap = [(r.due_s, i) for i, r in self._live.items() if r.due_s < never]
        heapq.heapify(self._heap)

    @property
    def next_due_s(self) -> float:
        return self._heap[0][0] if self._heap else float("inf")

    def pop_due(self, now_s: float) -> Iterator[Request]:
        """Requests whose appointment has come; who sees one makes the next."""
        while self._heap and self._heap[0][0] <= now_s:
            due_s, request_id = heapq.heappop(self._heap)
            request = self._live.get(request_id)
            if request is not None and request.due_s == due_s:
                request.due_s = float("inf")
                yield request

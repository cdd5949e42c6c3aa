"""Since when requests wait: the earliest of them, without a walk over all that come and go."""

from __future__ import annotations

import heapq

from headrace_scheduler.request.live_request import LANES, Request
from headrace_scheduler.state.lanes import Lanes

SLACK = 1000


class Earliest:
    """A time each of the requests in it; who left is forgotten when it comes to the top.

    Bounded by twice the requests in it, and `SLACK`.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._times: dict[str, float] = {}

    def __len__(self) -> int:
        """What it takes, those who have left included."""
        return len(self._heap)

    def put(self, request_id: str, at_s: float) -> None:
        self._times[request_id] = at_s
        heapq.heappush(self._heap, (at_s, request_id))
        if len(self._heap) > SLACK + 2 * len(self._times):
            self._heap = [(at_s, request_id) for request_id, at_s in self._times.items()]
            heapq.heapify(self._heap)

    def remove(self, request_id: str) -> None:
        del self._times[request_id]

    @property
    def at_s(self) -> float | None:
        """None if there is nobody."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def check_integrity(self, request_ids: set[str]) -> None:
        assert self._times.keys() == request_ids
        assert {(at_s, i) for i, at_s in self._times.items()} <= set(self._heap)


class Waits:
    """Since when those in the lanes wait."""

    def __init__(self) -> None:
        self._arrivals = {lane: Earliest() for lane in LANES}
        self._queued = Earliest()

    def put(self, request: Request) -> None:
        self._arrivals[request.lane].put(request.request_id, request.arrival_s)
        self._queued.put(request.request_id, request.queued_s)

    def remove(self, request: Request) -> None:
        self._arrivals[request.lane].remove(request.request_id)
        self._queued.remove(request.request_id)

    def oldest_s(self, lane: str, now_s: float) -> float:
        """Since the arrival of the oldest of a lane; 0 if nobody waits."""
        arrival_s = self._arrivals[lane].at_s
        return 0.0 if arrival_s is None else now_s - arrival_s

    @property
    def queued_s(self) -> float | None:
        """When the first of all that wait came into its lane."""
        return self._queued.at_s

    def check_integrity(self, lanes: Lanes) -> None:
        everybody: set[str] = set()
        for name, lane in lanes.items():
            waiting = {request.request_id for request in lane}
            self._arrivals[name].check_integrity(waiting)
            everybody |= waiting
        self._queued.check_integrity(everybody)

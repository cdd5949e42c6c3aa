"""Since when requests wait: the oldest of each lane, without a walk over all of them."""

from __future__ import annotations

from headrace_scheduler.request.live_request import LANES, Request
from headrace_scheduler.state.lanes import Lanes
from headrace_scheduler.state.lazy_heap import LazyHeap


class Waits:
    """The arrival of every waiting request, by lane, and when it entered its lane."""

    def __init__(self) -> None:
        self._arrivals = {lane: LazyHeap() for lane in LANES}
        self._queued = LazyHeap()

    def put(self, request: Request) -> None:
        self._arrivals[request.lane].put(request.request_id, request.arrival_s)
        self._queued.put(request.request_id, request.queued_s)

    def remove(self, request: Request) -> None:
        self._arrivals[request.lane].remove(request.request_id)
        self._queued.remove(request.request_id)

    def oldest_s(self, lane: str, now_s: float) -> float:
        """Return the seconds since the arrival of a lane's oldest request; 0 if it is empty."""
        return max(0.0, now_s - self._arrivals[lane].first_s)

    @property
    def queued_s(self) -> float:
        """When the first of all waiting requests entered its lane; infinity if none waits."""
        return self._queued.first_s

    def check_integrity(self, lanes: Lanes) -> None:
        """Raise AssertionError unless it holds exactly the requests of the lanes."""
        waiting = {name: {request.request_id for request in lane} for name, lane in lanes.items()}
        for name, request_ids in waiting.items():
            self._arrivals[name].check_integrity(request_ids)
        self._queued.check_integrity(set().union(*waiting.values()))

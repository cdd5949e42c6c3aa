"""The lanes of one model: who waits, in which order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from headrace.bus.subjects import PRIORITIES
from headrace_scheduler.forming import LaneView
from headrace_scheduler.requests import Request


class Lane:
    """Waiting requests of one priority, by their place in the stream.

    A request that returns after an attempt keeps its place, and so comes before
    all that were stored after it.
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, str]] = []
        self._requests: dict[str, Request] = {}
        self.credit = 0.0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Request]:
        return (self._requests[request_id] for _, request_id in self._order)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._requests

    def put(self, request: Request) -> None:
        assert request.request_id not in self._requests
        insort(self._order, (request.sequence, request.request_id))
        self._requests[request.request_id] = request

    def remove(self, request: Request) -> None:
        del self._requests[request.request_id]
        key = (request.sequence, request.request_id)
        at = bisect_left(self._order, key)
        assert self._order[at] == key
        del self._order[at]


class Lanes(Mapping[str, Lane]):
    """The lanes of a model by priority, most urgent first."""

    def __init__(self) -> None:
        self._lanes = {priority: Lane() for priority in PRIORITIES}

    def __getitem__(self, priority: str) -> Lane:
        return self._lanes[priority]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def waiting(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def views(self) -> list[LaneView[Request]]:
        return [LaneView(lane, lane.credit) for lane in self._lanes.values()]

    def set_credits(self, credits: tuple[float, ...]) -> None:
        for lane, credit in zip(self._lanes.values(), credits, strict=True):
            lane.credit = credit

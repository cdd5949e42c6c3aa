"""The running bulk requests that may be parked for more urgent ones."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from headrace.bus.subjects import PRIORITIES
from headrace_scheduler.request.live_request import Request

*PREEMPTING, LOWEST_PRIORITY = PRIORITIES
"""The lanes for whose requests those of the lowest are parked, the most urgent first."""


class PreemptionCandidates:
    """Kept in order, because it is read with every event while a more urgent request waits.

    Two kinds of bulk requests are no candidates: those that run by their lane's floor, which is
    what they keep of endless urgent load; and inputs of models that make vectors, which take one
    pass.
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, str]] = []
        self._requests: dict[str, Request] = {}
        self.slots = 0
        """Slots of the candidates."""
        self.floor_slots_in_use = 0
        """Slots of the requests that run by their lane's floor."""

    def __len__(self) -> int:
        return len(self._requests)

    def started(self, request: Request) -> None:
        """Add a request that runs from now on, if it is a candidate."""
        request.parked_for = ""
        if request.priority != LOWEST_PRIORITY:
            request.floor_slots = 0
        elif request.floor_slots:
            self.floor_slots_in_use += request.floor_slots
        elif not request.record.inputs:
            insort(self._order, (request.sequence, request.request_id))
            self._requests[request.request_id] = request
            self.slots += request.slots

    def stopped(self, request: Request) -> None:
        """Remove a request that runs no more."""
        self.remove(request)
        self.floor_slots_in_use -= request.floor_slots
        request.floor_slots = 0

    def remove(self, request: Request) -> None:
        """Remove a request; one that is no candidate is fine."""
        if self._requests.pop(request.request_id, None) is not None:
            self.slots -= request.slots
            key = (request.sequence, request.request_id)
            del self._order[bisect_left(self._order, key)]

    def __contains__(self, request: Request) -> bool:
        return request.request_id in self._requests

    def newest_first(self) -> Iterator[Request]:
        return (self._requests[request_id] for _, request_id in reversed(self._order))

    def check_integrity(self, running: dict[str, Request]) -> None:
        """Raise AssertionError if a candidate does not run, or the sums of slots are wrong."""
        assert self._requests.keys() <= running.keys()
        assert [i for _, i in self._order] == [
            r.request_id for r in sorted(self._requests.values(), key=lambda r: r.sequence)
        ]
        assert self.slots == sum(r.slots for r in self._requests.values())
        assert self.floor_slots_in_use == sum(r.floor_slots for r in running.values())

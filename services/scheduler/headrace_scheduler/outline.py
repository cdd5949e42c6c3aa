"""Who waits in one lane, in outline: told to gateways and counted for the forecast."""

from __future__ import annotations

from bisect import bisect_left, insort

from headrace_scheduler.requests import Request


class Outline:
    """Kept beside the lane, whose own order is by whose turn it is."""

    def __init__(self) -> None:
        self._sequences: list[int] = []
        self.slots = 0
        """Wanted by all that wait."""

    def put(self, request: Request) -> None:
        insort(self._sequences, request.sequence)
        self.slots += request.slots

    def remove(self, request: Request) -> None:
        del self._sequences[bisect_left(self._sequences, request.sequence)]
        self.slots -= request.slots

    def sketch(self, size: int) -> list[int]:
        """Places in the stream of those that wait, rising: of all, or of `size` at even distances
        of rank, the first and the last among them."""
        last = len(self._sequences) - 1
        if last < size:
            return list(self._sequences)
        return [self._sequences[last * i // (size - 1)] for i in range(size)]

    def check_integrity(self, waiting: list[Request]) -> None:
        assert self._sequences == sorted(request.sequence for request in waiting)
        assert self.slots == sum(request.slots for request in waiting)

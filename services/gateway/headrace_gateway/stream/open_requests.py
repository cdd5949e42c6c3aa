"""The table of open requests, by id."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.errors import RequestExists
from headrace_gateway.stream.open_request import OpenRequest


class OpenRequests:
    """Every open request, from before it is published until it is settled or abandoned."""

    def __init__(self) -> None:
        self._by_id: dict[str, OpenRequest] = {}
        self._released: set[str] = set()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[OpenRequest]:
        """A snapshot: entries may come and go while it is walked."""
        return iter(list(self._by_id.values()))

    def add(self, open_request: OpenRequest) -> None:
        """
        Raises:
            RequestExists: its id is open here.
        """
        if open_request.request_id in self._by_id:
            raise RequestExists(f"request {open_request.request_id} is open", field="request_id")
        self._by_id[open_request.request_id] = open_request

    def find(self, request_id: str) -> OpenRequest | None:
        return self._by_id.get(request_id)

    def remove(self, open_request: OpenRequest) -> None:
        """Remove the request; a no-op if it is not there."""
        if self._by_id.get(open_request.request_id) is open_request:
            del self._by_id[open_request.request_id]

    def release(self, open_request: OpenRequest) -> None:
        """Remove a request that another gateway continues once this one has stopped. It still
        counts as known here: the leader drops a request that no gateway holds."""
        self.remove(open_request)
        self._released.add(open_request.request_id)

    def has_released(self, request_id: str) -> bool:
        return request_id in self._released

    def check_integrity(self) -> None:
        """Raise AssertionError if an ended request still has bound slots."""
        for open_request in self._by_id.values():
            assert not (open_request.output.ended and open_request.bindings), (
                f"{open_request.request_id} is fed"
            )

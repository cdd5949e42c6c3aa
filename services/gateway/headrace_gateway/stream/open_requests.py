"""The table of open requests, by id."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.errors import RequestExists
from headrace_gateway.stream.open_request import OpenRequest


class OpenRequests:
    """Every outlet from before its record is published until it is settled or abandoned."""

    def __init__(self) -> None:
        self._outlets: dict[str, OpenRequest] = {}
        self._released: set[str] = set()

    def __len__(self) -> int:
        return len(self._outlets)

    def __iter__(self) -> Iterator[OpenRequest]:
        """A snapshot: entries may come and go while it is walked."""
        return iter(list(self._outlets.values()))

    def add(self, outlet: OpenRequest) -> None:
        """
        Raises:
            RequestExists: its id is open here.
        """
        if outlet.request_id in self._outlets:
            raise RequestExists(f"request {outlet.request_id} is open", field="request_id")
        self._outlets[outlet.request_id] = outlet

    def find(self, request_id: str) -> OpenRequest | None:
        return self._outlets.get(request_id)

    def remove(self, outlet: OpenRequest) -> None:
        """A no-op if it is not there: whoever closes it first removes it."""
        if self._outlets.get(outlet.request_id) is outlet:
            del self._outlets[outlet.request_id]

    def release(self, outlet: OpenRequest) -> None:
        """Others go on with it once this gateway has left; until then nobody is to be told that
        it is not known here, for what nobody holds is given up."""
        self.remove(outlet)
        self._released.add(outlet.request_id)

    def has_released(self, request_id: str) -> bool:
        return request_id in self._released

    def overdue(self, now_s: float, *, slack_s: float) -> list[OpenRequest]:
        """Those past their deadline for longer than `slack_s`, that have not ended."""
        return [
            outlet
            for outlet in self._outlets.values()
            if now_s > outlet.admitted.deadline_s + slack_s and not outlet.relay.ended
        ]

    def check_integrity(self) -> None:
        """Raise AssertionError if an ended request is still fed."""
        for outlet in self._outlets.values():
            assert not (outlet.relay.ended and outlet.feeds), f"{outlet.request_id} is fed"

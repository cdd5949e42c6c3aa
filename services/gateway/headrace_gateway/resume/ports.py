"""Protocols of the fleet and of requests, as the native API uses them."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1.fleet_pb2 import Lane, Worker
from headrace.v1.requests_pb2 import Request


class Fleet(Protocol):
    """Workers and lanes, as they last reported themselves."""

    def workers(self) -> list[Worker]:
        """Those that reported in the last three seconds, by name."""
        ...

    def lanes(self) -> list[Lane]:
        """By model and priority."""
        ...


def serving(fleet: Fleet) -> Counter[str]:
    """How many workers take requests of each model now, by its primary name."""
    return Counter(
        name for worker in fleet.workers() if not worker.draining for name in worker.models
    )


class Requests(Protocol):
    """Requests of this and every other gateway, by key."""

    async def get(self, key: str) -> Request:
        """Where it stands, or how it ended.

        Raises:
            RequestNotFound: no scheduler has it, and no result is kept of it.
        """
        ...

    async def look(self, key: str) -> tuple[Request, RequestRecord]:
        """The same, and what was asked for, without prompt and output.

        Raises:
            RequestNotFound: as `get`.
        """
        ...

    async def opened(self, key: str) -> Request:
        """A request that has just been opened here, as it stands."""
        ...

    async def cancel(self, key: str) -> Request:
        """End it, and say how it stands then; one that has ended is returned as it ended.

        Raises:
            RequestNotFound: as `get`.
        """
        ...

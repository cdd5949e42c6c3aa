"""Protocols of the fleet and of requests, as the APIs use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from headrace.internal.v1.reports_pb2 import LocateRequest
from headrace.v1.fleet_pb2 import Lane, Worker
from headrace_gateway.request.generation import Generation
from headrace_gateway.resume.location import Location


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


class Directory(Protocol):
    """Requests of this and every other gateway, by key."""

    async def near(self, key: str) -> Location | None:
        """Return the request if it is open at this gateway or has a result; no leader is requested.

        Raises:
            BrokerUnavailable: results cannot be read now.
        """
        ...

    async def locate(self, key: str, verb: LocateRequest.Verb.ValueType = ...) -> Location:
        """Return where the request is, and what its leader knows of it.

        With VERB_CANCEL it is ended first, if it has not ended: its reader gets RequestCancelled.

        Raises:
            RequestNotFound: no leader knows it, and no result is stored.
            GatewayUnreachable: some leader does not answer, or has just begun.
            BrokerUnavailable: as `near`.
        """
        ...

    async def wait(self, key: str, wait_s: float) -> Location:
        """As `locate`, but once the request has ended, or after `wait_s`, or when this gateway
        stops, whichever is first."""
        ...

    async def open(
        self, key: str, check: Callable[[Location], None], models: Iterable[str] | None = None
    ) -> Generation:
        """Open the output of the request for one more reader, from its beginning.

        Args:
            check: raises if the request that was found is not to be opened. It may be called again.
            models: those whose leaders may have it. Unset: all.

        Raises:
            HeadraceError: as `locate`; or this gateway cannot read it, or admits nothing more;
                or that of `check`. Nothing is held.
        """
        ...

"""Which gateways there are, and calls to one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from headrace.bus import Messages, subjects
from headrace.clock import Clock
from headrace.errors import GatewayUnreachable
from headrace.internal.v1.reports_pb2 import GatewayReport

log = logging.getLogger(__name__)

FRESH_S = 3.0
"""A gateway reports once a second."""
_RETRY_S = 1.0

Connect = Callable[[str], grpc.aio.Channel]


@dataclass(slots=True, eq=False)
class _Gateway:
    channel: grpc.aio.Channel
    seen_s: float = 0.0
    is_leaving: bool = False


class Gateways:
    """Follows the reports of gateways, and takes turns among those that report."""

    def __init__(self, messages: Messages, clock: Clock, connect: Connect) -> None:
        """`connect` opens a channel to an address."""
        self._messages, self._clock, self._connect = messages, clock, connect
        self._known: dict[str, _Gateway] = {}
        self._turn = 0

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the reports for the length of a `with`."""
        subscription = await self._messages.subscribe(subjects.GATEWAY_REPORTS, self._on_report)
        forgetting = asyncio.create_task(self._forget_silent())
        try:
            yield
        finally:
            forgetting.cancel()
            await subscription.close()
            for gateway in self._known.values():
                await gateway.channel.close()
            self._known.clear()

    def channel(self) -> grpc.aio.Channel:
        """Return the connection to a gateway, to another one each time.

        Raises:
            GatewayUnreachable: no gateway reports now.
        """
        oldest_s = self._clock.monotonic_s() - FRESH_S
        fresh = [
            gateway.channel
            for gateway in self._known.values()
            if gateway.seen_s > oldest_s and not gateway.is_leaving
        ]
        if not fresh:
            raise GatewayUnreachable("no gateway is known now", retry_after_s=_RETRY_S)
        self._turn += 1
        return fresh[self._turn % len(fresh)]

    def _on_report(self, payload: bytes) -> None:
        try:
            report = GatewayReport.FromString(payload)
        except DecodeError as error:
            log.warning("report.unreadable", extra={"error": str(error)})
            return
        known = self._known.get(report.gateway_id)
        if known is None:
            if report.leaving or not report.delivery_address:
                return
            known = _Gateway(self._connect(report.delivery_address))
            self._known[report.gateway_id] = known
        known.seen_s = self._clock.monotonic_s()
        known.is_leaving = report.leaving or report.draining

    async def _forget_silent(self) -> None:
        while True:
            await asyncio.sleep(FRESH_S)
            # Why later than they are used: calls may be under way.
            oldest_s = self._clock.monotonic_s() - 20 * FRESH_S
            for gateway_id, gateway in list(self._known.items()):
                if gateway.seen_s <= oldest_s:
                    del self._known[gateway_id]
                    await gateway.channel.close()

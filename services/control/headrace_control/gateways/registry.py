"""Which gateways run rows: those that report, are not about to leave, and have the fewest rows."""

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
from headrace.internal.v1.reports_pb2 import GatewayReport
from headrace.rpc.delivery_secret import DeliverySecret
from headrace_control.base import metrics
from headrace_control.gateways.row_stream import RowStream

log = logging.getLogger(__name__)

FRESH_S = 3.0
"""A gateway reports once a second."""

Connect = Callable[[str], grpc.aio.Channel]


@dataclass(slots=True, eq=False)
class Gateway:
    """One that reports, and its connection, which is closed once it is gone and has no row."""

    channel: grpc.aio.Channel
    rows: RowStream
    seen_s: float = 0.0
    is_leaving: bool = False


class Gateways:
    def __init__(
        self, messages: Messages, clock: Clock, connect: Connect, secret: DeliverySecret
    ) -> None:
        """`connect` opens a channel to an address."""
        self._messages, self._clock = messages, clock
        self._connect, self._secret = connect, secret
        self._known: dict[str, Gateway] = {}

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the reports of gateways for the length of a `with`."""
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

    def _on_report(self, payload: bytes) -> None:
        try:
            report = GatewayReport.FromString(payload)
        except DecodeError as error:
            metrics.unreadable_reports.labels("gateway").inc()
            log.warning("report.unreadable", extra={"report": "gateway", "error": str(error)})
            return
        known = self._known.get(report.gateway_id)
        if known is None:
            if report.leaving or not report.delivery_address:
                return
            channel = self._connect(report.delivery_address)
            known = Gateway(channel, RowStream(channel, self._secret))
            self._known[report.gateway_id] = known
        known.seen_s = self._clock.monotonic_s()
        known.is_leaving = report.leaving or report.draining

    def pick(self) -> RowStream | None:
        """Return the gateway that a row is to be sent to; None: none is known now."""
        oldest_s = self._clock.monotonic_s() - FRESH_S
        fresh = [
            gateway.rows
            for gateway in self._known.values()
            if gateway.seen_s > oldest_s and not gateway.is_leaving
        ]
        return min(fresh, key=len, default=None)

    async def _forget_silent(self) -> None:
        """Close the connections of gateways that report no more, again and again."""
        while True:
            await asyncio.sleep(FRESH_S)
            oldest_s = self._clock.monotonic_s() - FRESH_S
            for gateway_id, gateway in list(self._known.items()):
                if gateway.seen_s <= oldest_s and not len(gateway.rows):
                    del self._known[gateway_id]
                    await gateway.channel.close()

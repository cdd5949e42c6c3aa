"""The gateway's reports to all schedulers, once a second."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from headrace.bus import Messages, subjects
from headrace.internal.v1.reports_pb2 import GatewayReport

BEAT_S = 1.0


class Heartbeat:
    def __init__(
        self, gateway_id: str, messages: Messages, describe: Callable[[], GatewayReport]
    ) -> None:
        self._gateway_id = gateway_id
        self._describe = describe
        self._messages = messages
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> None:
        """Send a report now."""
        await self._send(self._describe())

    async def leave(self) -> None:
        """Send the last report: this gateway holds nothing any more."""
        await self._send(GatewayReport(leaving=True))

    async def _send(self, report: GatewayReport) -> None:
        report.gateway_id, report.number = self._gateway_id, next(self._numbers)
        await self._messages.publish(subjects.GATEWAY_REPORTS, report.SerializeToString())

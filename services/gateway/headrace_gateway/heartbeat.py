"""The gateway's sign of life to all schedulers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from headrace.bus import Messages, subjects
from headrace.internal.v1.reports_pb2 import GatewayReport, TakenOver

BEAT_S = 1.0


class Heartbeat:
    def __init__(
        self, gateway_id: str, messages: Messages, taken_over: Callable[[], list[TakenOver]]
    ) -> None:
        self._gateway_id = gateway_id
        self._taken_over = taken_over
        self._messages = messages
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._say(leaving=False)
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """Nothing is held here any more, and no report will follow."""
        await self._say(leaving=True)

    async def _say(self, *, leaving: bool) -> None:
        report = GatewayReport(
            gateway_id=self._gateway_id,
            number=next(self._numbers),
            leaving=leaving,
            taken_over=() if leaving else self._taken_over(),
        )
        await self._messages.publish(subjects.GATEWAY_REPORTS, report.SerializeToString())

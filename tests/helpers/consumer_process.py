"""A process that stores usage, and may kill itself right after its first commit.

python -m helpers.consumer_process NATS_URL DATABASE_URL kill|finish
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from headrace.bus.jetstream import connect
from headrace.bus.usage import StoredUsage
from headrace.clock import SystemClock
from headrace_control.metering.usage_consumer import UsageConsumer
from headrace_control.store import Store
from headrace_control.store.usage.ledger import Ledger, Recorded


class DeadlyLedger:
    """The store's, whose process dies once it has stored something."""

    def __init__(self, ledger: Ledger) -> None:
        self.position, self.set_aside = ledger.position, ledger.set_aside
        self._record = ledger.record

    async def record(self, messages: Sequence[StoredUsage]) -> Recorded:
        await self._record(messages)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


async def main(nats_url: str, database_url: str, end: str) -> None:
    bus = await connect(nats_url, name="consumer")
    store = await Store.open(database_url)
    ledger = DeadlyLedger(store.usage) if end == "kill" else store.usage
    consumer = UsageConsumer(bus, ledger, SystemClock())
    while await consumer.step(wait_s=0.2):
        pass
    await store.close()
    await bus.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))

"""Delivers events to endpoints, at least once each, in the active process.

What is due is in the database. An endpoint with something due has a task, its lane, which sends a
few deliveries at a time and ends when nothing is due: so an endpoint that is slow or dead delays no
other. What was sent and not recorded, because the process died, is sent again with the same
webhook-id.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Protocol

from headrace.cancellation import recheck_cancelled
from headrace.errors import ControlUnavailable
from headrace_control.base import metrics
from headrace_control.base.webhooks import DeliveryOutcome, WebhookDelivery, WebhookEndpoint
from headrace_control.webhooks.messages import body_of, headers_of, outcome_of
from headrace_control.webhooks.sealing import SecretSealer
from headrace_control.webhooks.sender import Answer

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Deliveries that are sent to one endpoint at a time."""
MAX_LANES = 500
"""Endpoints that are sent to at a time; the others wait until a lane ends. Each takes up to AT_ONCE
connections, while it is slow."""
POLL_S = 1.0
"""How often the database is asked for what is due, besides after each change of this process."""
PAUSE_S = 0.05
"""Shortest time between two such questions."""
CLEAN_S = 30.0
_RETRY_S = 1.0
_PAUSE_OF_FAILED_S = 60.0


class Deliveries(Protocol):
    """Of the store."""

    async def due_endpoints(self, besides: Collection[str], limit: int) -> tuple[str, ...]: ...

    async def due(
        self, endpoint_id: str, limit: int
    ) -> tuple[WebhookEndpoint, tuple[WebhookDelivery, ...]] | None: ...

    async def record(self, delivery: WebhookDelivery, outcome: DeliveryOutcome) -> bool: ...

    async def counts(self) -> tuple[int, int]: ...

    async def delete_old(self) -> int: ...

    async def wait_for_changes(self, timeout_s: float) -> None: ...


class Sender(Protocol):
    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Answer: ...


class Deliverer:
    def __init__(
        self,
        deliveries: Deliveries,
        sender: Sender,
        sealer: Callable[[], SecretSealer],
        now: Callable[[], datetime],
    ) -> None:
        self._deliveries, self._sender = deliveries, sender
        self._sealer, self._now = sealer, now
        self._lanes: set[str] = set()

    async def run(self) -> None:
        """Deliver until cancelled; a database that is away delays it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._clean())
            while True:
                recheck_cancelled()
                try:
                    free = MAX_LANES - len(self._lanes)
                    for endpoint_id in await self._deliveries.due_endpoints(self._lanes, free):
                        self._lanes.add(endpoint_id)
                        tasks.create_task(self._run_lane(endpoint_id))
                except ControlUnavailable as error:
                    log.warning("webhooks.not_read", extra={"why": str(error)})
                    await asyncio.sleep(_RETRY_S)
                await asyncio.sleep(PAUSE_S)
                await self._deliveries.wait_for_changes(POLL_S)

    async def _run_lane(self, endpoint_id: str) -> None:
        try:
            while (found := await self._deliveries.due(endpoint_id, AT_ONCE)) is not None:
                endpoint, due = found
                async with asyncio.TaskGroup() as tasks:
                    for delivery in due:
                        tasks.create_task(self._deliver(endpoint, delivery))
        except* ControlUnavailable as failed:
            log.warning("webhooks.not_recorded", extra={"why": str(failed.exceptions[0])})
            await asyncio.sleep(_RETRY_S)
        # Why all: a fault with one endpoint must not end the work for the others.
        except* Exception as failed:  # noqa: BLE001  # top of the lane's task
            why = str(failed.exceptions[0])
            log.error("webhooks.failed", extra={"endpoint": endpoint_id, "why": why})
            await asyncio.sleep(_PAUSE_OF_FAILED_S)
        finally:
            self._lanes.discard(endpoint_id)

    async def _deliver(self, endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> None:
        now, sealer = self._now(), self._sealer()
        secrets = [sealer.open(each.sealed) for each in endpoint.valid_secrets(now)]
        body, event_id = body_of(delivery.event), delivery.event.event_id
        headers = headers_of(event_id, body, secrets, unix_s=int(now.timestamp()))
        answer = await self._sender.send(endpoint.url, headers, body)
        attempts, chance = delivery.attempts + 1, random.random()
        outcome = outcome_of(
            answer.status, answer.error, attempts=attempts, now=self._now(), chance=chance
        )
        if not await self._deliveries.record(delivery, outcome):
            return
        result = "dead" if outcome.next_time is None else "retried"
        metrics.webhooks.labels(result if outcome.error else "delivered").inc()
        if outcome.disables:
            facts = {"endpoint": endpoint.endpoint_id, "why": outcome.disables}
            log.warning("webhooks.disabled", extra=facts)

    async def _clean(self) -> None:
        while True:
            recheck_cancelled()
            try:
                waiting, dead = await self._deliveries.counts()
                metrics.webhooks_waiting.set(waiting)
                metrics.webhooks_dead.set(dead)
                await self._deliveries.delete_old()
            except ControlUnavailable as error:
                log.warning("webhooks.not_cleaned", extra={"why": str(error)})
            await asyncio.sleep(CLEAN_S)

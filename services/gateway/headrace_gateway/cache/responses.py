"""The response cache: answers of ended requests, and of those that run, for equal requests.

    1  nothing is stored, no equal request runs      "miss"   it runs; its answer is stored then
    2  an equal request runs here                    "hit"    both read its output (`shared`)
    3  an answer is stored, here or with the broker  "hit"    it is the output, at once

Only for callers that want it, of tenants that allow it, and where the answer is reproducible;
else "bypass". A hit counts as a request, and costs no tokens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Protocol

from headrace.bus import BusError
from headrace.bus.objects import Responses
from headrace.bus.outbox import MAX_MESSAGE_BYTES, Outbox
from headrace.clock import Clock
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.internal.v1.usage_pb2 import UsageKind
from headrace.v1.common_pb2 import Priority, RequestOutcome
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.cache.hits import CacheHits
from headrace_gateway.cache.keys import is_reproducible, key_of
from headrace_gateway.cache.lru import BoundedCache
from headrace_gateway.cache.shared import SharedOutput
from headrace_gateway.queue.settlements import timestamp
from headrace_gateway.quota.call_limits import BYPASS, HIT, MISS, note_cache
from headrace_gateway.quota.limits import Rows
from headrace_gateway.request.generation import Event, Generation, ValidRequest
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.stored_output import StoredOutput

log = logging.getLogger(__name__)

BROKER_S = 0.25
"""Longest that a request waits for an answer that the broker may have."""
MAX_WAITING = 256
"""Answers that wait to be stored with the broker; later ones stay in memory alone."""

Open = Callable[[], Awaitable[Generation]]


class RequestCounter(Protocol):
    """Of the quotas."""

    async def count_request(self, request: ValidRequest) -> str: ...

    def uncount_request(self, request: ValidRequest, reservation_id: str) -> None: ...


class _Flight:
    """An equal request that is being opened, or is open here."""

    def __init__(self, priority: Priority.ValueType) -> None:
        self.priority = priority
        self.opened = asyncio.Event()
        """Set once it is open, or could not be opened."""
        self.open_request: OpenRequest | None = None

    @property
    def is_open(self) -> bool:
        return self.open_request is not None and not self.open_request.closed.is_set()


class ResponseCache:
    def __init__(
        self,
        settings: GatewaySettings,
        responses: Responses,
        clock: Clock,
        requests: OpenRequests,
        *,
        quotas: RequestCounter,
        rows: Rows,
        hits: CacheHits,
        secret: Callable[[], bytes],
    ) -> None:
        """
        Args:
            secret: of the mesh, for the keys; gateways with another one share nothing.
        """
        self._settings, self._responses, self._clock = settings, responses, clock
        self._requests, self._quotas, self._rows = requests, quotas, rows
        self._hits, self._secret = hits, secret
        self._flights: dict[str, _Flight] = {}
        self._memory = BoundedCache[str, bytes](
            settings.response_cache_bytes, settings.response_cache_ttl_s
        )
        self._outbox = Outbox[tuple[str, str, bytes]]("response_cache", self._put)
        self._gone: set[str] = set()
        self._purge = asyncio.Event()

    def may_have(self, request: ValidRequest, *, seeded: bool) -> bool:
        """Return whether the answer to a request may come from here, and be stored here."""
        tenant = self._rows.tenant(request.tenant)
        return (
            tenant is not None
            and tenant.row.response_cache
            and self._settings.response_cache_bytes > 0
            and not (request.background or request.once or request.row)
            and is_reproducible(request, seeded=seeded)
        )

    async def open(self, request: ValidRequest, open_own: Open, *, seeded: bool) -> Generation:
        """Return the output of a request whose caller wants it from the cache, if it is there.

        Args:
            open_own: admits the request, and returns its output.

        Raises:
            HeadraceError: as `open_own`; or the caller's limits do not admit another request.
        """
        if not self.may_have(request, seeded=seeded):
            note_cache(BYPASS)
            metrics.cache_lookups_total.labels("response", BYPASS).inc()
            return await open_own()
        key = key_of(request, self._secret())
        while (flight := self._flights.get(key)) is not None:
            await flight.opened.wait()
            if flight.is_open and flight.open_request is not None:
                if flight.priority > request.priority:
                    break  # It is less urgent than this one, and may wait for long.
                return await self._share(key, request, flight, open_own)
            self._land(key, flight)
        return await self._lead(key, request, open_own)

    async def _lead(self, key: str, request: ValidRequest, open_own: Open) -> Generation:
        """Return a stored answer, or open the request, for others to share."""
        flight = _Flight(request.priority)
        self._flights.setdefault(key, flight)
        try:
            if (outcome := await self._find(key, request)) is not None:
                return await self._answer(request, outcome)
            note_cache(MISS)
            metrics.cache_lookups_total.labels("response", MISS).inc()
            generation = await open_own()
            flight.open_request = self._requests.find(request.key)
            return _KeptOutput(generation, partial(self._end, key, request, flight))
        finally:
            flight.opened.set()
            self._land(key, flight)

    def _land(self, key: str, flight: _Flight) -> None:
        """Forget a flight that is over."""
        if not flight.is_open and self._flights.get(key) is flight:
            del self._flights[key]

    async def _share(
        self, key: str, request: ValidRequest, flight: _Flight, open_own: Open
    ) -> Generation:
        assert flight.open_request is not None
        # Why before the quota is asked: meanwhile its other readers may leave.
        reader = flight.open_request.reader()
        try:
            reservation_id = await self._count(request)
        except BaseException:
            await reader.abandon()
            raise

        def on_end(outcome: RequestOutcome | None, shared: bool) -> None:
            self._end(key, request, flight, outcome)
            if shared:
                self._record(request, reservation_id)
            else:
                # It became a request of its own, which is counted as any.
                self._quotas.uncount_request(request, reservation_id)

        return SharedOutput(
            reader, open_own, clock=self._clock, timeout_s=request.timeout_s, on_end=on_end
        )

    async def _answer(self, request: ValidRequest, outcome: RequestOutcome) -> Generation:
        self._record(request, await self._count(request))
        record = RequestRecord(
            request_id=request.key,
            model=request.card.model,
            arrival=timestamp(self._clock.unix_s()),
            sampling=request.sampling,
            seed=request.seed,
            n=request.n,
            prompt_tokens=request.prompt_tokens,
        )
        return StoredOutput(ResultRecord(request=record, outcome=outcome))

    async def _count(self, request: ValidRequest) -> str:
        reservation_id = await self._quotas.count_request(request)
        note_cache(HIT)
        metrics.cache_lookups_total.labels("response", HIT).inc()
        return reservation_id

    def _record(self, request: ValidRequest, reservation_id: str) -> None:
        kind = UsageKind.USAGE_KIND_COMPLETIONS
        self._hits.add(request, kind=kind, n=request.n, reservation_id=reservation_id)

    async def _find(self, key: str, request: ValidRequest) -> RequestOutcome | None:
        now_s = self._clock.monotonic_s()
        if (stored := self._memory.get(key, now_s)) is None:
            try:
                async with asyncio.timeout(BROKER_S):
                    stored = await self._responses.get_response(request.card.model, key)
            except (BusError, TimeoutError):
                return None
            if stored is None:
                return None
            self._keep(key, request.card.model, stored)
        return ResultRecord.FromString(stored).outcome

    def _end(
        self, key: str, request: ValidRequest, flight: _Flight, outcome: RequestOutcome | None
    ) -> None:
        """Keep the answer that a reader came to the end of; None: it left before."""
        self._land(key, flight)
        if outcome is None or outcome.HasField("error") or self._memory.has(key):
            return
        kept = RequestOutcome()
        kept.CopyFrom(outcome)
        for choice in kept.choices:
            # Its text is made again, of its tokens.
            choice.ClearField("text")
            choice.ClearField("tool_calls")
        stored = ResultRecord(outcome=kept).SerializeToString()
        if len(stored) > MAX_MESSAGE_BYTES:
            return
        self._keep(key, request.card.model, stored)
        if len(self._outbox) < MAX_WAITING:
            self._outbox.add((request.card.model, key, stored))

    def _keep(self, key: str, model: str, stored: bytes) -> None:
        now_s = self._clock.monotonic_s()
        self._memory.put(key, stored, len(stored), group=model, now_s=now_s)
        metrics.cache_bytes.labels("response").set(self._memory.stored_bytes)

    def forget(self, model: str) -> None:
        """Remove all answers of a model, whose weights are others now or which is removed."""
        self._memory.remove_group(model)
        metrics.cache_bytes.labels("response").set(self._memory.stored_bytes)
        self._gone.add(model)
        self._purge.set()

    @property
    def is_idle(self) -> bool:
        """Whether the broker has all that is cached here, and none of what is gone."""
        return not self._gone and not len(self._outbox)

    async def run(self) -> None:
        """Store answers with the broker, and remove those of models that are gone."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run())
            while True:
                await self._purge.wait()
                self._purge.clear()
                for model in list(self._gone):
                    try:
                        await self._responses.purge_responses(model)
                    except BusError as error:
                        # They are not found any more, and end by themselves.
                        log.warning("cache.not_purged", extra={"model": model, "why": str(error)})
                    self._gone.discard(model)

    async def _put(self, answers: list[tuple[str, str, bytes]]) -> None:
        kept_s = self._settings.response_cache_ttl_s
        await asyncio.gather(
            *(self._responses.put_response(*answer, kept_s=kept_s) for answer in answers)
        )


class _KeptOutput(Generation):
    """A generation whose end is reported, once it is settled."""

    def __init__(self, own: Generation, on_end: Callable[[RequestOutcome | None], None]) -> None:
        super().__init__(own.record)
        self._own, self._on_end = own, on_end

    def events(self) -> AsyncIterator[list[Event]]:
        return self._own.events()

    def arrived(self) -> list[Event]:
        return self._own.arrived()

    def end_choice(self, choice: int, tokens: int) -> None:
        self._own.end_choice(choice, tokens)

    async def settle(self, outcome: RequestOutcome) -> None:
        await self._own.settle(outcome)
        self._on_end(outcome)

    async def abandon(self) -> None:
        await self._own.abandon()
        self._on_end(None)

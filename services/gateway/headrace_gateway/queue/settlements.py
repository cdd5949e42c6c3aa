"""Stores the result of each ended request, then settles it with its leader.

Requests that have ended and are not settled count against `max_open_requests`: without a scheduler
they fill it, and the gateway then admits nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.code_pb2 import Code

from headrace.bus import Bus, BusError, subjects
from headrace.bus.outbox import MAX_MESSAGE_BYTES, Outbox, OutboxPerModel
from headrace.clock import Clock
from headrace.internal.v1.reports_pb2 import ResultRecord, Settlement, SettleRequest
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.priorities import priority_name
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.stored_record import without_prompt

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ended:
    record: RequestRecord
    attempt: int
    outcome: RequestOutcome
    ended_s: float
    """On the monotonic clock."""
    end_time: Timestamp = field(default_factory=Timestamp)
    first_token_ms: int = 0
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its result is stored, or will not be."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def settlement(self) -> Settlement:
        usage = self.outcome.usage
        return Settlement(
            request_id=self.record.request_id,
            code=self.outcome.error.code,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            held_since_attempt=self.record.held_since_attempt,
            cached_prompt_tokens=usage.cached_prompt_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            first_token_ms=self.first_token_ms,
        )

    def result(self) -> ResultRecord:
        return ResultRecord(
            request_id=self.record.request_id,
            model=self.record.model,
            priority=self.record.priority,
            arrival=self.record.arrival,
            attempt=self.attempt,
            outcome=_kept(self.outcome),
            request=self.record,
            end_time=self.end_time,
        )


async def _no_response(result: ResultRecord) -> None:
    """Store nothing."""


class Settlements:
    def __init__(
        self,
        settings: GatewaySettings,
        gateway_id: str,
        bus: Bus,
        clock: Clock,
        store_response: Callable[[ResultRecord], Awaitable[None]] = _no_response,
    ) -> None:
        """`store_response`: stores the result of a response with the conversations; raises
        BusError."""
        self._settings, self._gateway_id = settings, gateway_id
        self._store_response = store_response
        self._bus, self._clock = bus, clock
        self._unsettled: dict[str, _Ended] = {}
        self._results = Outbox[_Ended]("result", self._store, max_retry_s=0.2)
        self._settlements = OutboxPerModel[_Ended]("settle", self._settle)

    def __len__(self) -> int:
        """Return the number of requests that have ended and are not settled."""
        return len(self._unsettled)

    def find(self, request_id: str) -> ResultRecord | None:
        """Return the result of a request that is being settled."""
        ended = self._unsettled.get(request_id)
        return None if ended is None else ended.result()

    async def settled(self, request_id: str) -> None:
        """Return once a request of this name that has ended is settled, or after
        `leader_answer_timeout_s`.

        Return at once where there is none.
        """
        if (ended := self._unsettled.get(request_id)) is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.leader_answer_timeout_s):
                await ended.settled.wait()

    def close(self, open_request: OpenRequest, outcome: RequestOutcome) -> None:
        """Store the result and settle the request, retrying until both are confirmed."""
        now_s, end_time = self._clock.monotonic_s(), timestamp(self._clock.unix_s())
        ended = _Ended(
            open_request.record,
            open_request.output.newest_attempt,
            outcome,
            now_s,
            end_time,
            open_request.first_token_ms,
            open_request.result_stored,
        )
        self._unsettled[open_request.request_id] = ended
        metrics.unsettled_requests.set(len(self._unsettled))
        model, priority = ended.record.model, priority_name(ended.record.priority)
        if ended.record.probe:
            ended.stored.set()
            self._settlements.add(model, ended)
            return
        metrics.requests_total.labels(model, priority, Code.Name(outcome.error.code)).inc()
        self._results.add(ended)

    def settle_kept(self, record: RequestRecord, outcome: RequestOutcome) -> None:
        """Settle a request whose result another gateway has stored."""
        now_s = self._clock.monotonic_s()
        ended = _Ended(without_prompt(record), record.attempt, outcome, now_s)
        self._unsettled[record.request_id] = ended
        metrics.unsettled_requests.set(len(self._unsettled))
        self._settlements.add(record.model, ended)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._results.run())
            tasks.create_task(self._settlements.run())

    async def _store(self, ended: list[_Ended]) -> list[_Ended]:
        """Store results, and settle their requests; return those that could not be stored yet."""
        done = await asyncio.gather(*map(self._try_store, ended))
        return [one for one, is_done in zip(ended, done, strict=True) if not is_done]

    async def _try_store(self, ended: _Ended) -> bool:
        result = ended.result()
        kept_s = result.request.result_ttl.ToNanoseconds() / 1e9
        try:
            if result.request.stored_response:
                await self._store_response(result)
            await self._bus.put_result(result.request_id, result.SerializeToString(), kept_s=kept_s)
        except BusError:
            # Why: bounded. A result that cannot be stored must not keep its request unsettled.
            age_s = self._clock.monotonic_s() - ended.ended_s
            if age_s < self._settings.result_store_timeout_s:
                return False
            metrics.results_not_stored_total.inc()
            log.error("result.not_stored", extra={"request_id": result.request_id})
        ended.stored.set()
        self._settlements.add(result.model, ended)
        return True

    async def _settle(self, model: str, ended: list[_Ended]) -> None:
        request = SettleRequest(
            gateway_id=self._gateway_id, settlements=[one.settlement() for one in ended]
        )
        await self._bus.request(
            subjects.settle(model),
            request.SerializeToString(),
            timeout_s=self._settings.leader_answer_timeout_s,
        )
        now_s = self._clock.monotonic_s()
        for one in ended:
            # A later request of the same name may be waiting to be settled in its place.
            if self._unsettled.get(one.record.request_id) is one:
                del self._unsettled[one.record.request_id]
            one.settled.set()
            metrics.settle_seconds.labels(model).observe(now_s - one.ended_s)
        metrics.unsettled_requests.set(len(self._unsettled))


def timestamp(unix_s: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(unix_s * 1e9))
    return stamp


def _kept(outcome: RequestOutcome) -> RequestOutcome:
    """Return the outcome as it is stored: without logprobs if they would not fit a message."""
    if outcome.ByteSize() <= MAX_MESSAGE_BYTES:
        return outcome
    kept = RequestOutcome()
    kept.CopyFrom(outcome)
    for choice in kept.choices:
        choice.ClearField("logprobs")
        choice.ClearField("prompt_logprobs")
    return kept

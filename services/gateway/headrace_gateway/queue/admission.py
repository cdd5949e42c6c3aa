"""Admission to a lane: refuses a request at once, or publishes it and holds it open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from secrets import token_hex

from google.protobuf.duration_pb2 import Duration

from headrace.bus import Bus, BusUnavailable, LaneLimitReached
from headrace.clock import Clock
from headrace.errors import (
    BrokerUnavailable,
    CapacityError,
    GatewayDraining,
    LaneFull,
    RequestExists,
)
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.priorities import priority_name
from headrace.v1 import common_pb2
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S, LaneView, lane_name
from headrace_gateway.queue.settlements import Settlements, timestamp
from headrace_gateway.quota.reservations import Quotas, Reservation
from headrace_gateway.quota.usage_room import UsageRoom
from headrace_gateway.request.generation import Generation, ValidRequest
from headrace_gateway.request.payer import Payer, TokenRange
from headrace_gateway.request.record import request_record
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.output_budgets import OutputBudgets
from headrace_gateway.stream.stored_record import digest_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """This run of the gateway, and where workers reach its DeliveryService."""

    gateway_id: str
    delivery_address: str


class LaneAdmission:
    """The `Admission` of this gateway."""

    def __init__(
        self,
        settings: GatewaySettings,
        address: GatewayAddress,
        bus: Bus,
        clock: Clock,
        requests: OpenRequests,
        settlements: Settlements,
        *,
        lanes: LaneView,
        quotas: Quotas,
        budgets: OutputBudgets,
        usage_room: UsageRoom,
        read_in_background: Callable[[OpenRequest], None],
    ) -> None:
        self._settings, self._address = settings, address
        self._quotas, self._budgets, self._usage_room = quotas, budgets, usage_room
        self._bus = bus
        self._clock = clock
        self._requests = requests
        self._settlements = settlements
        self._lanes = lanes
        self._read_in_background = read_in_background
        self._draining = False

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """Refuse everything from now on."""
        self._draining = True

    def check(
        self,
        model: str,
        priority: common_pb2.Priority.ValueType,
        *,
        payer: Payer,
        tokens: TokenRange,
        patience_s: float,
    ) -> None:
        self._check_lane(model, priority, tenant=payer.tenant, patience_s=patience_s)
        self._usage_room.check(payer.key_id)
        self._quotas.check(payer, tokens)

    def _check_lane(
        self,
        model: str,
        priority: common_pb2.Priority.ValueType,
        *,
        tenant: str,
        patience_s: float,
    ) -> None:
        now_s = self._clock.monotonic_s()
        refusal = self._gateway_refusal() or self._lanes.refusal(
            model, priority, tenant=tenant, patience_s=patience_s, now_s=now_s
        )
        if refusal is not None:
            metrics.refusals_total.labels(model, priority_name(priority), refusal.reason).inc()
            raise refusal

    def most_at_once(self, payer: Payer) -> int | None:
        return self._quotas.most_at_once(payer)

    async def open(self, request: ValidRequest) -> Generation:
        (generation,) = await self.open_all([request])
        return generation

    async def open_all(self, requests: Sequence[ValidRequest]) -> list[Generation]:
        for request in requests:
            # Why: the client may have received the whole answer of the one that is ending, and so
            # may use the name again.
            await self._settlements.settled(request.key)
        self._usage_room.check(*(request.key_id or request.person for request in requests))
        opened: list[Generation] = []
        # Why before the lanes: what a quota refuses takes no place in them.
        async with self._quotas.reserved(requests) as reservations:
            try:
                for request, reservation in zip(requests, reservations, strict=True):
                    # Why again: others were admitted since. From here to `publishing` nothing
                    # awaits, so the last place of a lane is taken once.
                    self._check_lane(
                        request.card.model,
                        request.priority,
                        tenant=request.tenant,
                        patience_s=request.patience_s,
                    )
                    opened.append(await self._publish(request, reservation))
            except BaseException:
                for generation in opened:
                    await generation.abandon()
                raise
        return opened

    async def open_canary(self, request: ValidRequest) -> Generation:
        """As `open`, for a canary: no lane's report refuses it, and it is not measured."""
        self.require_room()
        return await self._publish(request, None, is_canary=True)

    def require_room(self) -> None:
        """
        Raises:
            CapacityError: this gateway admits nothing more, whatever room its lanes have.
        """
        if (refusal := self._gateway_refusal()) is not None:
            raise refusal

    def _gateway_refusal(self) -> CapacityError | None:
        if self._draining:
            return GatewayDraining("this gateway is shutting down", retry_after_s=DEFAULT_RETRY_S)
        if not self._bus.connected:
            return BrokerUnavailable("no connection to NATS", retry_after_s=DEFAULT_RETRY_S)
        if fault := self._bus.fault:
            # Why before it is tried: the broker would not answer, and the caller would wait for it.
            return BrokerUnavailable(
                f"the broker cannot store requests: {fault}", retry_after_s=DEFAULT_RETRY_S
            )
        held = len(self._requests) + len(self._settlements)
        if held >= self._settings.max_open_requests:
            return LaneFull(
                f"this gateway holds {held} requests, its bound", retry_after_s=DEFAULT_RETRY_S
            )
        return None

    async def _publish(
        self, request: ValidRequest, reservation: Reservation | None, *, is_canary: bool = False
    ) -> Generation:
        record = self._record(request)
        record.probe = is_canary
        if reservation is not None:
            record.reservation_id = reservation.reservation_id
            record.output_budget = reservation.output_tokens
        deadline_s = self._clock.monotonic_s() + request.timeout_s
        open_request = OpenRequest(record, deadline_s, self._clock, self.close)
        if self._settlements.find(request.key) is not None:
            raise RequestExists(f"request {request.request_id} is ending", field="request_id")
        # Before it is published: its first token may come before the broker's confirmation.
        self._requests.add(open_request)
        self._budgets.begin(open_request)
        counted = self._lanes.publishing(record.model, record.priority)
        try:
            with nullcontext() if is_canary else counted:
                open_request.sequence = await self._submit(record)
        except LaneFull:
            self._requests.remove(open_request)
            raise
        except BaseException:
            # It may be stored: its client gets an error, so it is settled as cancelled.
            if reservation is not None:
                reservation.leave()
            open_request.abandon()
            raise
        if reservation is not None:
            reservation.confirm()
        if request.background and request.row is None:
            # The answer to a row is read to its end by what has opened it, whoever waits for it.
            self._read_in_background(open_request)
        return open_request.reader()

    async def _submit(self, record: RequestRecord) -> int:
        payload, priority = record.SerializeToString(), priority_name(record.priority)
        # Why not the request's id: an id may be used again after its end, and the broker
        # would take the second request for a repeat of the first, and drop it in silence.
        message_id = f"{record.request_id}.{token_hex(8)}"
        cause: BusUnavailable | None = None
        try:
            async with asyncio.timeout(self._settings.submit_timeout_s):
                while True:
                    try:
                        return await self._bus.submit(
                            record.model, priority, payload, message_id=message_id
                        )
                    except BusUnavailable as error:
                        cause = error
                        log.warning("request.not_stored", extra={"error": str(error)})
                        await asyncio.sleep(0.1)
        except TimeoutError:
            raise self._not_stored(cause) from None
        except LaneLimitReached as bound:
            fact = f"lane {lane_name(record.model, record.priority)}: {bound}"
            raise LaneFull(fact, retry_after_s=DEFAULT_RETRY_S) from bound

    def _not_stored(self, cause: BusUnavailable | None) -> BrokerUnavailable:
        if fault := self._bus.fault:
            text = f"the broker cannot store requests: {fault}"
        else:
            text = f"NATS did not store the request within {self._settings.submit_timeout_s:g} s"
            text += f": {cause}" if cause else ""
        return BrokerUnavailable(text, retry_after_s=DEFAULT_RETRY_S)

    def close(self, open_request: OpenRequest, outcome: common_pb2.RequestOutcome) -> None:
        """Close an open request of this gateway: store its result and settle it."""
        self._requests.remove(open_request)
        self._settlements.close(open_request, outcome)

    def _record(self, request: ValidRequest) -> RequestRecord:
        now_s = self._clock.unix_s()
        record = request_record(request, now_s)
        record.deadline.CopyFrom(timestamp(now_s + request.timeout_s))
        record.patience.CopyFrom(_duration(request.patience_s))
        record.gateway_id = self._address.gateway_id
        record.delivery_address = self._address.delivery_address
        if request.row is not None:
            record.batch_id, record.batch_line = request.row.batch_id, request.row.line
        if request.result_ttl_s:
            record.result_ttl.CopyFrom(_duration(request.result_ttl_s))
        if not request.inputs:
            record.rendering.digest = digest_of(request)
        return record


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration

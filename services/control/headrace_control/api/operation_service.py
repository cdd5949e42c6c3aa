"""OperationService: what operators see of a running mesh and do to it."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from headrace.admin.v1 import operations_pb2 as pb
from headrace.admin.v1.operations_pb2_grpc import OperationServiceServicer
from headrace.auth.caller import Caller
from headrace.auth.scopes import MESH_TENANT
from headrace.bus import Bus, NoResponders
from headrace.bus.control import request_drain, request_undrain
from headrace.clock import Clock
from headrace.errors import InvalidRequest, RequestNotFound, ResourceNotFound
from headrace.fleet.reports import ReportedFleet
from headrace.internal.v1.operations_pb2 import ListLiveRequestsRequest
from headrace.request_keys import public_id, tenant_of
from headrace_control.api.callers import current_caller, recheck_caller
from headrace_control.api.calls import Context
from headrace_control.base.page_tokens import page_size
from headrace_control.base.records import Actor
from headrace_control.operations import names
from headrace_control.operations.dead_letters import DeadLetters
from headrace_control.operations.leaders import Leaders
from headrace_control.operations.live_requests import ENDED, after_of, listed, page_limit
from headrace_control.store import Store

REPLY_S = 5.0
WATCH_S = 1.0
"""Time between two fleets of a stream."""


class OperationParts(Protocol):
    @property
    def bus(self) -> Bus: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> Store: ...
    @property
    def fleet(self) -> ReportedFleet: ...


class OperationService(OperationServiceServicer):
    def __init__(self, parts: OperationParts) -> None:
        self._bus, self._clock, self._fleet = parts.bus, parts.clock, parts.fleet
        self._audit = parts.store.audit
        self._leaders = Leaders(parts.bus)
        self._dead_letters = DeadLetters(parts.bus, parts.clock)

    async def ListRequests(
        self, request: pb.ListRequestsRequest, context: Context
    ) -> pb.ListRequestsResponse:
        tenant = _tenant_for(current_caller(), request.parent)
        query = ListLiveRequestsRequest(
            tenant=tenant,
            # Why only there: an idle mesh has nothing but these.
            probes=bool(request.parent) and tenant == MESH_TENANT,
            after_sequence=after_of(request.page_token),
            limit=page_limit(request.page_size),
        )
        page = await self._leaders.page(query, model=request.model)
        return pb.ListRequestsResponse(
            requests=map(listed, page.rows),
            next_page_token=page.next_token,
            unreachable=page.unreachable,
        )

    async def CancelRequest(
        self, request: pb.CancelRequestRequest, context: Context
    ) -> pb.LiveRequest:
        caller, key = current_caller(), names.key_of_request(request.name)
        if not caller.may_administer(tenant_of(key)):
            raise RequestNotFound(
                f"request {public_id(key)} not found: it is not running and no stored result"
                " exists",
                field="name",
            )
        found = await self._leaders.cancel(key)
        if found.state != ENDED:
            await self._record("requests.cancel", request.name, tenant=tenant_of(key))
        return found

    async def WatchFleet(
        self, request: pb.WatchFleetRequest, context: Context
    ) -> AsyncIterator[pb.Fleet]:
        while True:
            yield self._seen()
            await asyncio.sleep(WATCH_S)
            recheck_caller()

    def _seen(self) -> pb.Fleet:
        rates = self._fleet.output_tokens_per_s()
        fleet = pb.Fleet(
            workers=self._fleet.workers(),
            lanes=self._fleet.lanes(),
            rates=[
                pb.WorkerRate(worker_id=worker_id, output_tokens_per_second=rate)
                for worker_id, rate in sorted(rates.items())
            ],
        )
        fleet.time.FromNanoseconds(int(self._clock.unix_s() * 1e9))
        return fleet

    async def DrainWorker(
        self, request: pb.DrainWorkerRequest, context: Context
    ) -> pb.DrainWorkerResponse:
        name = names.worker_of(request.name)
        grace_s = None
        if request.HasField("grace"):
            grace_s = request.grace.ToNanoseconds() / 1e9
            if grace_s < 0:
                fact = f"grace is {grace_s:g} s; it must be 0 or more"
                raise InvalidRequest(fact, field="grace")
        known = sum(worker.name == name for worker in self._fleet.workers())
        try:
            reply = await request_drain(self._bus, name, grace_s=grace_s, timeout_s=REPLY_S)
        except NoResponders:
            raise ResourceNotFound(
                f"no process named {name} is connected; `headrace fleet` shows the workers",
                field="name",
            ) from None
        await self._record("workers.drain", request.name, grace_s=grace_s)
        draining = max(1, known) if reply.drains else 0
        return pb.DrainWorkerResponse(draining=draining, stays_stopped=reply.stays_stopped)

    async def UndrainWorker(
        self, request: pb.UndrainWorkerRequest, context: Context
    ) -> pb.UndrainWorkerResponse:
        name = names.worker_of(request.name)
        try:
            was_drained = await request_undrain(self._bus, name, timeout_s=REPLY_S)
        except NoResponders:
            raise ResourceNotFound(
                f"no supervisor has a worker named {name}: whatever started it starts it again",
                field="name",
            ) from None
        await self._record("workers.undrain", request.name)
        return pb.UndrainWorkerResponse(was_drained=was_drained)

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        found = await self._dead_letters.latest(page_size(request.page_size))
        return pb.ListDeadLettersResponse(dead_letters=found)

    async def ResendDeadLetter(
        self, request: pb.ResendDeadLetterRequest, context: Context
    ) -> pb.ResendDeadLetterResponse:
        key = await self._dead_letters.resend(names.sequence_of(request.name))
        name = names.request_name(key)
        await self._record("deadLetters.resend", request.name, tenant=tenant_of(key), request=name)
        return pb.ResendDeadLetterResponse(request=name)

    async def _record(
        self, action: str, resource: str, *, tenant: str = "", **details: object
    ) -> None:
        caller = current_caller()
        known = {name: value for name, value in details.items() if value is not None}
        by = Actor(caller.actor, caller.client)
        await self._audit.append(action, resource, tenant=tenant, details=known, by=by)


def _tenant_for(caller: Caller, parent: str) -> str:
    """Return the tenant whose requests are listed; empty: all.

    Raises:
        ResourceNotFound: the caller does not administer this tenant.
    """
    tenant = names.tenant_of_parent(parent) if parent else ""
    if not tenant:
        return "" if caller.is_operator else caller.tenant
    if not caller.may_administer(tenant):
        raise ResourceNotFound(f"tenant {tenant} not found", field="parent")
    return tenant

"""The mesh side put together: everything behind admission, without a door in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from headrace.bus import Bus, subjects
from headrace.clock import Clock
from headrace.internal.v1.delivery_pb2_grpc import add_DeliveryServiceServicer_to_server
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.queue.admission import AdmissionTerms, LaneAdmission
from headrace_gateway.queue.fleet import FleetView
from headrace_gateway.queue.heartbeat import Heartbeat
from headrace_gateway.queue.lanes import LaneView
from headrace_gateway.queue.queueing import tell_queued
from headrace_gateway.queue.reports import following
from headrace_gateway.queue.settling import Settlements
from headrace_gateway.resume.background import BackgroundReaders, Tell
from headrace_gateway.resume.directory import RequestDirectory
from headrace_gateway.resume.notices import Notices
from headrace_gateway.resume.takeovers import Takeovers
from headrace_gateway.stream.delivery import DeliveryService
from headrace_gateway.stream.last_token import LastTokenClock
from headrace_gateway.stream.losses import LostAttempts
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.submit.watchdog import watch_deadlines


@dataclass(frozen=True, slots=True)
class Mesh:
    """The gateway's side of the mesh, without its doors."""

    gateway_id: str
    bus: Bus
    clock: Clock
    requests: OpenRequests
    settling: Settlements
    losses: LostAttempts
    lanes: LaneView
    fleet: FleetView
    freshness: LastTokenClock
    admission: LaneAdmission
    attachments: RequestDirectory
    heartbeat: Heartbeat
    claims: Takeovers
    detached: BackgroundReaders
    deadline_slack_s: float
    queue_told_after_s: float
    stream_keepalive_s: float
    answer_s: float
    """How long a leader may take to answer."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep its tasks and subscriptions for the length of a `with`."""
        notices = Notices(self.requests, self.settling, self.claims, self.bus)
        async with (
            asyncio.TaskGroup() as tasks,
            following(self.bus, self.lanes, self.fleet, self.clock),
        ):
            served = await self.bus.serve(subjects.notice(self.gateway_id), notices.answer)
            # Last: from the first report on, leaders send notices.
            background = tasks.create_task(self._background())
            try:
                yield
            finally:
                await served.close()
                await self.detached.close()
                background.cancel()
        await self.heartbeat.leave()

    async def drain(self) -> None:
        """Take nothing more from now on, and say so."""
        self.admission.drain()
        await self.heartbeat.beat()

    async def _background(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.settling.run())
            tasks.create_task(self.losses.run())
            tasks.create_task(self.heartbeat.run())
            tasks.create_task(
                tell_queued(
                    self.requests,
                    self.lanes,
                    self.clock,
                    after_s=self.queue_told_after_s,
                    every_s=self.stream_keepalive_s,
                )
            )
            tasks.create_task(
                watch_deadlines(self.requests, self.clock, slack_s=self.deadline_slack_s)
            )


def assemble(
    settings: GatewaySettings,
    bus: Bus,
    clock: Clock,
    *,
    gateway_id: str,
    delivery_address: str,
    tell: Tell,
) -> Mesh:
    answer_s = settings.leader_answer_timeout_s
    requests, lanes = OpenRequests(), LaneView(fresh_s=settings.lane_report_max_age_s)
    settling = Settlements(
        gateway_id, bus, clock, store_s=settings.result_store_timeout_s, answer_s=answer_s
    )
    losses = LostAttempts(
        gateway_id, bus, clock, grace_s=settings.worker_reconnect_grace_s, answer_s=answer_s
    )
    terms = _terms(settings, gateway_id=gateway_id, delivery_address=delivery_address)
    detached = BackgroundReaders(tell)
    admission = LaneAdmission(
        terms, bus, clock, requests, settling, lanes, read_detached=detached.read
    )
    claims = Takeovers(
        gateway_id, delivery_address, bus, clock, requests, admission, read_detached=detached.read
    )
    return Mesh(
        gateway_id=gateway_id,
        bus=bus,
        clock=clock,
        requests=requests,
        settling=settling,
        losses=losses,
        lanes=lanes,
        fleet=FleetView(),
        freshness=LastTokenClock(clock),
        admission=admission,
        attachments=RequestDirectory(
            gateway_id, bus, clock, requests, settling, claims, wait_s=settings.attach_wait_s
        ),
        heartbeat=Heartbeat(gateway_id, bus, claims.report),
        claims=claims,
        detached=detached,
        deadline_slack_s=settings.deadline_slack_s,
        queue_told_after_s=settings.queue_told_after_s,
        stream_keepalive_s=settings.stream_keepalive_s,
        answer_s=answer_s,
    )


def _terms(settings: GatewaySettings, *, gateway_id: str, delivery_address: str) -> AdmissionTerms:
    return AdmissionTerms(
        gateway_id=gateway_id,
        delivery_address=delivery_address,
        max_open=settings.max_open_requests,
        submit_s=settings.submit_timeout_s,
    )


def serve_delivery(server: grpc.aio.Server, mesh: Mesh) -> None:
    service = DeliveryService(mesh.requests, mesh.losses, mesh.freshness)
    add_DeliveryServiceServicer_to_server(service, server)

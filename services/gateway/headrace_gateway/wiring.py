"""Puts the mesh side of the gateway together: everything behind admission, without the APIs."""

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
from headrace_gateway.queue.admission import GatewayAddress, LaneAdmission
from headrace_gateway.queue.fleet import FleetView
from headrace_gateway.queue.heartbeat import Heartbeat
from headrace_gateway.queue.lanes import LaneView
from headrace_gateway.queue.queueing import report_queued
from headrace_gateway.queue.reports import following
from headrace_gateway.queue.settlements import Settlements
from headrace_gateway.resume.background import AnswerBuilder, BackgroundReaders
from headrace_gateway.resume.directory import RequestDirectory
from headrace_gateway.resume.notices import Notices
from headrace_gateway.resume.takeovers import Takeovers
from headrace_gateway.stream.delivery import DeliveryService
from headrace_gateway.stream.last_token import LastTokenClock
from headrace_gateway.stream.lost_attempts import LostAttempts
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.submit.watchdog import watch_deadlines


@dataclass(frozen=True, slots=True)
class Mesh:
    """The gateway's side of the mesh, without the APIs."""

    gateway_id: str
    bus: Bus
    clock: Clock
    requests: OpenRequests
    settlements: Settlements
    lost_attempts: LostAttempts
    lanes: LaneView
    fleet: FleetView
    last_token: LastTokenClock
    admission: LaneAdmission
    directory: RequestDirectory
    heartbeat: Heartbeat
    takeovers: Takeovers
    background: BackgroundReaders
    settings: GatewaySettings

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep its tasks and subscriptions for the length of a `with`."""
        notices = Notices(self.requests, self.settlements, self.takeovers, self.bus)
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
                await self.background.close()
                background.cancel()
        await self.heartbeat.leave()

    async def drain(self) -> None:
        """Admit nothing more from now on, and report that."""
        self.admission.drain()
        await self.heartbeat.beat()

    async def _background(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.settlements.run())
            tasks.create_task(self.lost_attempts.run())
            tasks.create_task(self.heartbeat.run())
            tasks.create_task(
                report_queued(
                    self.requests,
                    self.lanes,
                    self.clock,
                    after_s=self.settings.queue_told_after_s,
                    every_s=self.settings.stream_keepalive_s,
                )
            )
            tasks.create_task(
                watch_deadlines(self.requests, self.clock, slack_s=self.settings.deadline_slack_s)
            )


def assemble(
    settings: GatewaySettings,
    bus: Bus,
    clock: Clock,
    *,
    gateway_id: str,
    delivery_address: str,
    build_answer: AnswerBuilder,
) -> Mesh:
    answer_s = settings.leader_answer_timeout_s
    requests, lanes = OpenRequests(), LaneView(fresh_s=settings.lane_report_max_age_s)
    settlements = Settlements(
        gateway_id, bus, clock, store_s=settings.result_store_timeout_s, answer_s=answer_s
    )
    lost_attempts = LostAttempts(
        gateway_id, bus, clock, grace_s=settings.worker_reconnect_grace_s, answer_s=answer_s
    )
    background = BackgroundReaders(build_answer)
    address = GatewayAddress(gateway_id, delivery_address)
    admission = LaneAdmission(
        settings,
        bus,
        clock,
        requests,
        settlements,
        lanes,
        address=address,
        read_in_background=background.read,
    )
    takeovers = Takeovers(
        gateway_id,
        delivery_address,
        bus,
        clock,
        requests,
        admission,
        read_in_background=background.read,
    )
    return Mesh(
        gateway_id=gateway_id,
        bus=bus,
        clock=clock,
        requests=requests,
        settlements=settlements,
        lost_attempts=lost_attempts,
        lanes=lanes,
        fleet=FleetView(),
        last_token=LastTokenClock(clock),
        admission=admission,
        directory=RequestDirectory(
            gateway_id, bus, clock, requests, settlements, takeovers, wait_s=settings.attach_wait_s
        ),
        heartbeat=Heartbeat(gateway_id, bus, takeovers.report),
        takeovers=takeovers,
        background=background,
        settings=settings,
    )


def serve_delivery(server: grpc.aio.Server, mesh: Mesh) -> None:
    service = DeliveryService(mesh.requests, mesh.lost_attempts, mesh.last_token)
    add_DeliveryServiceServicer_to_server(service, server)

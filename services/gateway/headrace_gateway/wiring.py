"""Puts the mesh side of the gateway together: everything behind admission, without the APIs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import grpc

from headrace.bus import Bus, subjects
from headrace.clock import Clock
from headrace.fleet.reports import following
from headrace.fleet.workers import FleetView
from headrace.internal.v1.attach_pb2_grpc import add_AttachServiceServicer_to_server
from headrace.internal.v1.delivery_pb2_grpc import add_DeliveryServiceServicer_to_server
from headrace.quota import QuotaClient
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.cache.caches import Caches
from headrace_gateway.conversations.store import ConversationStore
from headrace_gateway.queue.admission import GatewayAddress, LaneAdmission
from headrace_gateway.queue.heartbeat import Heartbeat
from headrace_gateway.queue.lanes import LaneView
from headrace_gateway.queue.queueing import report_queued
from headrace_gateway.queue.settlements import Settlements
from headrace_gateway.quota.limits import Rows, created_ms
from headrace_gateway.quota.reservations import Quotas
from headrace_gateway.quota.usage_room import UsageRoom
from headrace_gateway.resume.attach_service import AttachService
from headrace_gateway.resume.background import AnswerBuilder, BackgroundReaders
from headrace_gateway.resume.directory import RequestDirectory
from headrace_gateway.resume.notices import Notices
from headrace_gateway.resume.takeovers import Takeovers
from headrace_gateway.stream.delivery import DeliveryService
from headrace_gateway.stream.last_token import LastTokenClock
from headrace_gateway.stream.lost_attempts import LostAttempts
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.output_budgets import OutputBudgets
from headrace_gateway.submit.watchdog import watch_deadlines


class Mesh:
    """The gateway's side of the mesh, without the APIs."""

    def __init__(
        self,
        settings: GatewaySettings,
        bus: Bus,
        clock: Clock,
        address: GatewayAddress,
        *,
        build_answer: AnswerBuilder,
        models: Callable[[], Iterable[str] | None],
        rows: Rows,
    ) -> None:
        """
        Args:
            models: those whose leaders may have a request; None while they are not known yet.
            rows: tenants and keys, whose limits apply.
        """
        self.settings, self.bus, self.clock = settings, bus, clock
        self.address, self.build_answer = address, build_answer
        self.requests = requests = OpenRequests()
        self.lanes, self.fleet = LaneView(fresh_s=settings.lane_report_max_age_s), FleetView()
        self.last_token, self.background = LastTokenClock(clock), BackgroundReaders(build_answer)
        self.conversations = ConversationStore(settings, bus, clock, partial(created_ms, rows))
        keep = self.conversations.store_result
        self.settlements = Settlements(settings, address.gateway_id, bus, clock, keep)
        self.lost_attempts = LostAttempts(settings, address.gateway_id, bus, clock)
        self.keeper = QuotaClient(bus, address.gateway_id, clock)
        self.quotas = _quotas(rows, self.keeper, clock, settings)
        self.budgets = OutputBudgets(self.quotas, self.lost_attempts)
        self.usage_room = UsageRoom(bus)
        self.admission = LaneAdmission(
            settings,
            address,
            bus,
            clock,
            requests,
            self.settlements,
            lanes=self.lanes,
            quotas=self.quotas,
            budgets=self.budgets,
            usage_room=self.usage_room,
            read_in_background=self.background.read,
        )
        self.caches = Caches(
            settings, bus, clock, address.gateway_id, requests, quotas=self.quotas, rows=rows
        )
        self.takeovers = Takeovers(
            address,
            bus,
            clock,
            requests,
            self.admission,
            quotas=self.quotas,
            budgets=self.budgets,
            read_in_background=self.background.read,
        )
        self.directory = RequestDirectory(
            settings,
            address,
            bus,
            clock,
            requests,
            self.settlements,
            takeovers=self.takeovers,
            models=models,
        )
        self.heartbeat = Heartbeat(address.gateway_id, bus, self.takeovers.report)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep its tasks and subscriptions for the length of a `with`."""
        notices = Notices(
            self.requests, self.settlements, self.takeovers, self.bus, quotas=self.quotas
        )
        async with (
            asyncio.TaskGroup() as tasks,
            following(
                self.bus,
                self.lanes,
                self.fleet,
                self.clock,
                on_unreadable=lambda report: metrics.unreadable_reports_total.labels(report).inc(),
            ),
        ):
            served = await self.bus.serve(subjects.notice(self.address.gateway_id), notices.answer)
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
        self.directory.waiter.leave()
        await self.heartbeat.beat()

    async def _background(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.settlements.run())
            tasks.create_task(self.lost_attempts.run())
            tasks.create_task(self.budgets.run())
            tasks.create_task(self.heartbeat.run())
            tasks.create_task(self.keeper.run())
            tasks.create_task(self.usage_room.run())
            tasks.create_task(self.caches.run())
            tasks.create_task(report_queued(self.requests, self.lanes, self.clock, self.settings))
            tasks.create_task(watch_deadlines(self.requests, self.clock, self.settings))


def serve_delivery(server: grpc.aio.Server, mesh: Mesh) -> None:
    """Add the services that workers and other gateways call."""
    delivery = DeliveryService(mesh.requests, mesh.lost_attempts, mesh.budgets, mesh.last_token)
    add_DeliveryServiceServicer_to_server(delivery, server)
    attach = AttachService(mesh.requests, mesh.build_answer)
    add_AttachServiceServicer_to_server(attach, server)


def _quotas(rows: Rows, keeper: QuotaClient, clock: Clock, settings: GatewaySettings) -> Quotas:
    return Quotas(
        rows,
        keeper,
        clock,
        refusal_kept_s=settings.quota_refusal_kept_s,
        ahead_tokens=settings.quota_ahead_tokens,
    )

"""The gateway process: with `mesh`, the one place that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from functools import partial
from uuid import uuid4

import grpc

from headrace.auth.check.access import Access
from headrace.auth.check.forwarded import ForwardedCallerInterceptor
from headrace.bus import Bus, BusUnavailable
from headrace.bus.control import serve_drain
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.credentials.secret_files import InsecureSecretFile
from headrace.fleet.reports import ReportedFleet
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.rows_pb2_grpc import add_RowServiceServicer_to_server
from headrace.rpc.addresses import (
    UNSPECIFIED,
    join_host_port,
    own_address_for,
    split_host_port,
    without_zone,
)
from headrace.rpc.delivery_secret import RequireDeliverySecret
from headrace.rpc.malformed import RejectMalformed
from headrace.rpc.roles import DELIVERY_ROLES, EDGE_ROLES
from headrace.rpc.server import add_health_and_reflection, bind, make_server
from headrace.settings import write_ports
from headrace.telemetry import logs
from headrace.telemetry.certificate_expiry import export_expiry
from headrace.telemetry.metrics_server import MetricsServer
from headrace.v1 import (
    anthropic_pb2_grpc,
    embeddings_pb2_grpc,
    fleet_pb2_grpc,
    generation_pb2_grpc,
    models_pb2_grpc,
    openai_pb2_grpc,
    own_key_pb2_grpc,
    probes_pb2_grpc,
    requests_pb2_grpc,
    responses_pb2_grpc,
    rest_pb2_grpc,
)
from headrace_gateway.api.anthropic.service import AnthropicService
from headrace_gateway.api.http.rejection import reject_call
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.http.slow_readers import SlowReaderInterceptor
from headrace_gateway.api.native.embedding_service import EmbeddingService
from headrace_gateway.api.native.fleet_service import FleetService, RequestService
from headrace_gateway.api.native.generation_service import GenerationService
from headrace_gateway.api.native.model_service import ModelService
from headrace_gateway.api.native.own_key_service import OwnKeyService
from headrace_gateway.api.native.rest_service import RestService
from headrace_gateway.api.openai.service import OpenAIService
from headrace_gateway.api.probes.health import Health
from headrace_gateway.api.probes.open_api import open_api
from headrace_gateway.api.probes.service import ProbeService
from headrace_gateway.api.responses.service import ResponsesService
from headrace_gateway.api.rows.service import RowService
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.health_monitor import HealthMonitor
from headrace_gateway.models.catalog import Catalog
from headrace_gateway.output.answering import rebuild_answer
from headrace_gateway.queue.admission import GatewayAddress
from headrace_gateway.quota.usage_today import UsageToday
from headrace_gateway.resume.open_or_resume import RequestOpener
from headrace_gateway.shutdown import shut_down
from headrace_gateway.submit.canary import Canary
from headrace_gateway.submit.embedding import Embedding
from headrace_gateway.submit.submitter import Submitter
from headrace_gateway.wiring import Mesh, serve_delivery

log = logging.getLogger(__name__)

PUBLIC_SERVICES = tuple(
    f"headrace.v1.{name}"
    for name in (
        "OpenAIService",
        "AnthropicService",
        "ResponsesService",
        "GenerationService",
        "EmbeddingService",
        "ModelService",
        "RestService",
        "RequestService",
        "OwnKeyService",
        "FleetService",
        "ProbeService",
    )
)


def add_public_services(
    server: grpc.aio.Server, services: ApiServices, observe: Callable[[], Health]
) -> tuple[str, ...]:
    """Add every public service; return their names."""
    openai_pb2_grpc.add_OpenAIServiceServicer_to_server(OpenAIService(services), server)
    anthropic_pb2_grpc.add_AnthropicServiceServicer_to_server(AnthropicService(services), server)
    responses_pb2_grpc.add_ResponsesServiceServicer_to_server(ResponsesService(services), server)
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(GenerationService(services), server)
    embeddings_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingService(services), server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(services), server)
    rest_pb2_grpc.add_RestServiceServicer_to_server(RestService(services), server)
    requests_pb2_grpc.add_RequestServiceServicer_to_server(RequestService(services), server)
    own_key_pb2_grpc.add_OwnKeyServiceServicer_to_server(OwnKeyService(services), server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(FleetService(services), server)
    probes = ProbeService(observe, open_api, services.catalog.may_use)
    probes_pb2_grpc.add_ProbeServiceServicer_to_server(probes, server)
    return PUBLIC_SERVICES


def _api_services(mesh: Mesh, catalog: Catalog) -> ApiServices:
    submitter = Submitter(catalog, mesh.admission, mesh.settings, responses=mesh.caches.responses)
    return ApiServices(
        catalog=catalog,
        submitter=submitter,
        embedding=Embedding(catalog, mesh.admission, mesh.settings, cache=mesh.caches.vectors),
        opener=RequestOpener(catalog, submitter, mesh.directory),
        requests=mesh.directory,
        conversations=mesh.conversations,
        fleet=ReportedFleet(mesh.fleet, mesh.lanes, mesh.clock),
        quotas=mesh.quotas,
        usage_today=UsageToday(mesh.bus, mesh.clock),
        settings=mesh.settings,
    )


async def run(settings: GatewaySettings) -> int:
    """The gateway's life, until SIGTERM or SIGINT and the drain after it."""
    logs.configure(service="gateway", name=settings.name, level=settings.log_level)
    export_expiry(settings.tls)
    gateway_id = f"{settings.name}-{uuid4().hex[:12]}"
    try:
        bus = await connect(
            settings.nats_url,
            name=gateway_id,
            replicas=settings.nats_replicas,
            tls=settings.tls,
            credentials_file=settings.nats_credentials_file,
        )
        await _Gateway(settings, bus, gateway_id).run()
    except (BusUnavailable, InsecureSecretFile, OSError) as error:
        log.error("gateway.cannot_start", extra={"error": str(error)})
        return 1
    return 0


class _Gateway:
    def __init__(self, settings: GatewaySettings, bus: Bus, gateway_id: str) -> None:
        self._settings = settings
        self._bus = bus
        tls = settings.tls
        clock = SystemClock()
        self._access = Access(
            settings,
            bus,
            clock,
            gateway_id,
            tenant_header=settings.tenant_header,
            reject=reject_call,
        )
        self._delivery = _delivery_server(settings, self._access)
        self._public = make_server(
            [
                RejectMalformed(),
                SlowReaderInterceptor(settings.reader_stall_s),
                self._access.interceptor,
            ],
            tls=tls,
            roles=EDGE_ROLES,
        )
        delivery_port = bind(self._delivery, settings.host, settings.delivery_port, tls)
        public_port = bind(self._public, settings.host, settings.grpc_port, tls)
        self._ports = {"grpc": public_port, "delivery": delivery_port}
        self._catalog = Catalog(
            bus, settings, self._reported_cards, lambda model: self._mesh.caches.forget(model)
        )
        address = join_host_port(_advertised_host(settings), delivery_port)
        self._mesh = Mesh(
            settings,
            bus,
            clock,
            GatewayAddress(gateway_id, address),
            build_answer=partial(rebuild_answer, self._catalog),
            models=self._known_models,
            rows=self._access.tables,
        )
        serve_delivery(self._delivery, self._mesh)
        self._monitor = HealthMonitor(self._mesh, self._catalog, self._access.not_ready_reason)
        services = _api_services(self._mesh, self._catalog)
        self._rows = RowService(
            services, clock, why_not_ready=lambda: self._monitor.observe().problem
        )
        add_RowServiceServicer_to_server(self._rows, self._delivery)
        _serve_web(self._delivery, services, settings)
        self._services = add_public_services(self._public, services, self._monitor.observe)
        self._health = add_health_and_reflection(self._public, self._services)

    async def run(self) -> None:
        settings = self._settings
        stopped = _stop_signal()
        side = MetricsServer(
            settings.host,
            settings.metrics_port,
            why_not_ready=lambda: self._monitor.last.problem,
            details=lambda: self._monitor.last.details(),
        )
        with side:
            async with (
                self._access.running(),
                self._mesh.running(),
                asyncio.TaskGroup() as tasks,
            ):
                background = tasks.create_task(self._background(side))
                canary = tasks.create_task(self._canary().run())
                await self._delivery.start()
                await self._public.start()
                # What is loaded by now stays: collections that walk it would stall every stream.
                gc.freeze()
                write_ports(settings, self._ports | {"metrics": side.port})
                await serve_drain(self._bus, settings.name, lambda _: stopped.set())
                log.info("gateway.ready", extra=self._ports | {"metrics": side.port})
                await stopped.wait()
                canary.cancel()
                await self._leave()
                background.cancel()
            await self._delivery.stop(grace=0.5)
            await self._bus.close()
        log.info("gateway.left")

    async def _background(self, side: MetricsServer) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._catalog.run())
            tasks.create_task(self._monitor.run(self._health, self._services))
            tasks.create_task(side.beat())

    def _canary(self) -> Canary:
        mesh = self._mesh
        return Canary(
            mesh.admission, self._served_cards, mesh.last_token, mesh.clock, self._settings
        )

    async def _leave(self) -> None:
        self._monitor.shut_down()
        # Health first: Envoy must have noticed before the first refusal.
        await self._health.enter_graceful_shutdown()
        await shut_down(self._mesh)
        await self._rows.close()
        await self._public.stop(grace=1.0)

    def _served_cards(self) -> list[ModelCard]:
        now_s = self._mesh.clock.monotonic_s()
        cards = (served.card for served in self._catalog.all())
        return [card for card in cards if self._mesh.fleet.serving(card.model, now_s)]

    def _known_models(self) -> list[str] | None:
        """Return the models that are configured; None in the first moment, while none is known."""
        served = [served.card.model for served in self._catalog.all()]
        known = served + self._catalog.loading()
        return known if known or not self._monitor.last.starting else None

    def _reported_cards(self, model: str) -> list[ModelCard]:
        return self._mesh.fleet.cards(model, self._mesh.clock.monotonic_s())


def _delivery_server(settings: GatewaySettings, access: Access) -> grpc.aio.Server:
    """Return the server for the mesh: workers, other gateways, control and web."""
    interceptors = (
        RequireDeliverySecret(settings.delivery_secret),
        ForwardedCallerInterceptor(access.tables, requires_keys=access.requires_keys),
    )
    return make_server(interceptors, tls=settings.tls, roles=DELIVERY_ROLES)


def _serve_web(server: grpc.aio.Server, services: ApiServices, settings: GatewaySettings) -> None:
    """Add what web asks on behalf of those who use its page."""
    if settings.auth == "keys" and settings.tls is None and settings.delivery_secret_file is None:
        return  # whoever reaches the port could act for any caller
    requests_pb2_grpc.add_RequestServiceServicer_to_server(RequestService(services), server)


def _advertised_host(settings: GatewaySettings) -> str:
    """The name under which workers reach this process."""
    if settings.advertised_host or settings.host not in UNSPECIFIED:
        return without_zone(settings.advertised_host or settings.host)
    # Why: whatever reaches the broker as we do is on the network that we reach it by.
    first = settings.nats_url.split(",", maxsplit=1)[0]
    return own_address_for(*split_host_port(first))


def _stop_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped

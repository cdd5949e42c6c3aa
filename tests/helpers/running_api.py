"""The gateway's API on a real gRPC server, over a scripted admission."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from headrace.auth.check.edge import Edge
from headrace.auth.check.gates import OpenGate
from headrace.auth.check.interceptor import AccessInterceptor
from headrace.clock import SystemClock
from headrace.errors import GatewayUnreachable, RequestNotFound
from headrace.internal.v1.model_card_pb2 import Adapter, Capabilities, ModelCard
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.internal.v1.rows_pb2_grpc import add_RowServiceServicer_to_server
from headrace.model_names import lane_id
from headrace.rpc.malformed import RejectMalformed
from headrace.rpc.server import add_health_and_reflection, bind, make_server, set_serving
from headrace.v1 import (
    common_pb2,
    fleet_pb2,
)
from headrace_gateway.api.http.rejection import reject_call
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.http.slow_readers import SlowReaderInterceptor
from headrace_gateway.api.probes.health import Health, ModelState
from headrace_gateway.api.rows.service import RowService
from headrace_gateway.app import add_public_services
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.cache.hits import CacheHits
from headrace_gateway.cache.vectors import VectorCache
from headrace_gateway.conversations.store import ConversationStore
from headrace_gateway.models.catalog import Catalog
from headrace_gateway.quota.limits import created_ms
from headrace_gateway.quota.reservations import Quotas
from headrace_gateway.quota.usage_today import UsageToday
from headrace_gateway.request.generation import Generation
from headrace_gateway.resume.location import Location
from headrace_gateway.resume.open_or_resume import RequestOpener
from headrace_gateway.stream.stored_output import StoredOutput
from headrace_gateway.submit.embedding import Embedding
from headrace_gateway.submit.submitter import Submitter
from helpers.memory_conversations import MemoryConversations
from helpers.scripted_admission import ScriptedAdmission
from helpers.scripted_keeper import NO_LIMITS, FixedRows, StandinControl, StandinKeeper
from helpers.tiny_tokenizers import bundle, byte_level, word_pieces

PARTS = """\
{%- for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}
{%- endfor %}"""
"""A chat template that reads the text of messages in parts alone."""
OPENS = """\
{%- for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor -%}
|{{ reasoning_effort }} {{ enable_thinking }} {{ thinking }}|<think>
"""
"""One that opens the reasoning, and prints what it is told of it."""
SERVICES = ("headrace.v1.OpenAIService", "headrace.v1.GenerationService")

READER_STALL_S = 3.0

CARD = ModelCard(
    model="valley",
    weights_digest="0123456789abcdef",
    tokenizer_digest="t1",
    context_tokens=200,
    vocabulary_size=byte_level().get_vocab_size(),
    eos_token_ids=[1],
    dtype="float32",
    engine="scripted",
    max_slots=4,
    capabilities=Capabilities(logprobs=True, token_masks=True, cache_salt=True),
    adapters=[
        Adapter(name="broken", failure="its rank 65 is over 64"),
        Adapter(name="poet", digest="sha256:fedcba"),
    ],
)


@dataclass
class StaticCards:
    """Cards, by model, and tokenizers as given."""

    cards: dict[str, bytes]
    tokenizers: dict[str, bytes]
    _heard_by: list[Callable[[str, bytes], None]] = field(default_factory=list)

    async def put_card(self, model: str, card: bytes) -> None:
        self.cards[model] = card
        for on_card in self._heard_by:
            on_card(lane_id(model), card)

    async def get_card(self, model: str) -> bytes | None:
        return self.cards.get(model)

    async def all_cards(self) -> list[bytes]:
        return list(self.cards.values())

    async def replace_card(self, model: str, card: bytes, successor: bytes | None) -> bool:
        if self.cards.get(model) != card:
            return False
        if successor is not None:
            await self.put_card(model, successor)
            return True
        del self.cards[model]
        for on_card in self._heard_by:
            on_card(lane_id(model), b"")
        return True

    async def watch_cards(self, on_card: Callable[[str, bytes], None]) -> StaticCards:
        self._heard_by.append(on_card)
        for model, card in self.cards.items():
            on_card(lane_id(model), card)
        return self

    async def put_tokenizer(self, digest: str, bundle: bytes) -> None:
        self.tokenizers[digest] = bundle

    async def get_tokenizer(self, digest: str) -> bytes:
        return self.tokenizers[digest]

    async def close(self) -> None:
        self._heard_by.clear()


class StandinFleet:
    def workers(self) -> list[fleet_pb2.Worker]:
        return [fleet_pb2.Worker(worker_id="w-1", name="one", models=["valley"], total_slots=4)]

    def lanes(self) -> list[fleet_pb2.Lane]:
        return [fleet_pb2.Lane(model="valley", priority=common_pb2.PRIORITY_BULK, waiting=2)]


@dataclass
class StandinDirectory:
    """Knows one running request, "known", and background requests that were admitted.

    No request can be read from it; of "unled" no leader knows whether it can.
    """

    admission: ScriptedAdmission
    results: dict[str, ResultRecord] = field(default_factory=dict)
    """Stored results, by key."""

    async def near(self, key: str) -> Location | None:
        admitted = [each.request for each in self.admission.generations if each.request.background]
        if key not in [request.key for request in admitted]:
            return None
        record = RequestRecord(request_id=key, detached=True)
        return Location(leader=LocateResponse(found=True, record=record))

    async def locate(
        self, key: str, verb: LocateRequest.Verb.ValueType = LocateRequest.VERB_FIND
    ) -> Location:
        if key != "known":
            raise RequestNotFound(f"request {key} is not known", field="request_id")
        record = RequestRecord(request_id=key)
        if verb == LocateRequest.VERB_CANCEL:
            return Location(result=ResultRecord(request=record))
        return Location(leader=LocateResponse(found=True, running=True, record=record))

    async def wait(self, key: str, wait_s: float) -> Location:
        return await self.locate(key)

    async def open(
        self, key: str, check: Callable[[Location], None], models: Iterable[str] | None = None
    ) -> Generation:
        if (result := self.results.get(key)) is not None:
            check(location := Location(result=result))
            assert location.result is not None
            return StoredOutput(location.result)
        if key == "unled":
            raise GatewayUnreachable("no scheduler knows yet where it is", retry_after_s=1.0)
        raise RequestNotFound(f"request {key} is not known", field="request_id")


class StandinUsage:
    """Stores nothing."""

    async def publish_usage(self, records: bytes) -> None: ...


@dataclass
class StandinProbes:
    """The gateway's health, which a test may change."""

    health: Health = field(
        default_factory=lambda: Health(
            leaving=False,
            broker_connected=True,
            models={"asleep": ModelState.NO_WORKER, "valley": ModelState.READY},
            leader_age_s=0.1,
        )
    )

    def observe(self) -> Health:
        return self.health


@dataclass
class RunningApi:
    admission: ScriptedAdmission
    catalog: Catalog
    port: int
    probes: StandinProbes
    directory: StandinDirectory
    cards: StaticCards
    rows: RowService
    services: ApiServices

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def api_services(
    catalog: Catalog,
    admission: ScriptedAdmission,
    settings: GatewaySettings,
    rows: FixedRows = NO_LIMITS,
) -> ApiServices:
    submitter, directory = Submitter(catalog, admission, settings), StandinDirectory(admission)
    clock = SystemClock()
    quotas, hits = Quotas(rows, StandinKeeper(), clock), CacheHits(StandinUsage(), "gw", clock)
    cache = VectorCache(settings, clock, quotas=quotas, rows=rows, hits=hits)
    return ApiServices(
        catalog=catalog,
        submitter=submitter,
        embedding=Embedding(catalog, admission, settings, cache=cache),
        opener=RequestOpener(catalog, submitter, directory),
        requests=directory,
        conversations=ConversationStore(
            settings, MemoryConversations(), clock, partial(created_ms, rows)
        ),
        fleet=StandinFleet(),
        quotas=quotas,
        usage_today=UsageToday(StandinControl(), clock),
        settings=settings,
    )


def open_interceptor(settings: GatewaySettings) -> AccessInterceptor:
    """Admit everybody, as where no keys are required and control does not run."""
    tables: Any = SimpleNamespace(tenant=lambda name: None)
    gate = OpenGate(Edge(settings), tables, settings.tenant_header)
    header = settings.tenant_header
    return AccessInterceptor(gate, tenant_header=header, reject=reject_call)


@asynccontextmanager
async def running_api(
    admission: ScriptedAdmission,
    *more: ModelCard,
    limits: GatewaySettings | None = None,
    interceptor: AccessInterceptor | None = None,
    rows: FixedRows = NO_LIMITS,
    cards: Sequence[ModelCard] | None = None,
) -> AsyncIterator[RunningApi]:
    """Serve the API over two models with the tiny byte-level tokenizer and ChatML.

    A worker serves "valley" and its adapter "poet"; none serves "asleep" now, whose engine
    does no more than generate. The tokenizer "t2" has word pieces. One of `more` may be
    another "valley", or have a tokenizer whose chat template is "broken", prints nothing of
    what is said ("silent"), or reads it in "parts". `cards`: in place of all these.
    """
    asleep = ModelCard()
    asleep.CopyFrom(CARD)
    asleep.model = "asleep"
    asleep.ClearField("capabilities")
    served = (CARD, asleep, *more) if cards is None else cards
    stored = StaticCards(
        {card.model: card.SerializeToString() for card in served},
        {
            "t1": bundle(byte_level()).SerializeToString(),
            "t2": bundle(word_pieces(), chat_template=None).SerializeToString(),
            "parts": bundle(byte_level(), chat_template=PARTS).SerializeToString(),
            "broken": bundle(byte_level(), chat_template="\n\n{% if %}").SerializeToString(),
            "opens": bundle(byte_level(), chat_template=OPENS).SerializeToString(),
            "silent": bundle(byte_level(), chat_template="Say!").SerializeToString(),
        },
    )
    settings = limits or GatewaySettings()
    catalog = Catalog(stored, settings, lambda model: [CARD] if model == CARD.model else [])
    server = make_server(
        [
            RejectMalformed(),
            SlowReaderInterceptor(READER_STALL_S),
            interceptor or open_interceptor(settings),
        ]
    )
    probes = StandinProbes()
    services = api_services(catalog, admission, settings, rows)
    add_public_services(server, services, probes.observe)
    row_service = RowService(
        services, SystemClock(), why_not_ready=lambda: probes.observe().problem
    )
    add_RowServiceServicer_to_server(row_service, server)
    health = add_health_and_reflection(server, SERVICES)
    port = bind(server, "127.0.0.1", 0)
    following = asyncio.create_task(catalog.run())
    try:
        async with asyncio.timeout(5):
            while len(catalog.all()) < len(stored.cards):
                await asyncio.sleep(0)
        await server.start()
        await set_serving(health, SERVICES, serving=True)
        assert isinstance(services.requests, StandinDirectory)
        directory = services.requests
        yield RunningApi(admission, catalog, port, probes, directory, stored, row_service, services)
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await row_service.close()
        await server.stop(grace=0.2)

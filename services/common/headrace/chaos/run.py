"""One chaos run: every request undisturbed, then load with faults, then a wait for an idle mesh."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from headrace.chaos.clients.background import BackgroundClient
from headrace.chaos.clients.batches import BatchClient
from headrace.chaos.clients.streaming import ChaosClient, GrpcClient, OpenAIClient
from headrace.chaos.faults import FaultInjector, FaultKind
from headrace.chaos.history import EventLog, RunEnded, RunStarted
from headrace.chaos.requests import Api, make_requests
from headrace.chaos.traffic import Traffic
from headrace.client import AsyncClient
from headrace.errors import HeadraceError
from headrace.rpc.addresses import grpc_target
from headrace.rpc.channels import aio_channel
from headrace.rpc.tls import Trust, public_security
from headrace.supervisor.state.failures import MeshError
from headrace.supervisor.state.state_dir import StateDir
from headrace.v1 import models_pb2

_IDLE_WITHIN_S = 30.0
_MAX_TOKENS = 400


@dataclass
class Run:
    """The options of a run, and the run itself: call `run` once."""

    url: str
    faults: tuple[FaultKind, ...]
    minutes: float
    streams: int
    seed: int
    rate_per_s: float | None
    """Requests a second, instead of `streams` clients with one request after another."""
    pause_s: float
    """Longest time from one fault's recovery to the next fault; the shortest is a tenth of it."""
    requests: int
    """Different requests."""
    overlap: bool
    """Inject the next fault without waiting for the recovery of the last."""
    state_dir: StateDir
    log: EventLog
    report: Callable[[str], None]
    """Called with what is being done."""
    api_keys: tuple[str | None, ...] = field(default=(None,), repr=False)
    """Of the requests, in turn; None: none."""
    admin_key: str | None = field(default=None, repr=False)
    """Of the look-ups of workers and lanes."""
    batches: bool = False
    """Send batches, too, with each key."""
    trust: Trust = field(default_factory=lambda: Trust(ca_file=None, server_name=""))
    """For an https URL."""

    def __post_init__(self) -> None:
        self._rng = random.Random(f"faults {self.seed}")
        self._injector = FaultInjector(self.state_dir, self.log, self._rng, self.report)

    async def run(self) -> None:
        """Fill the event log.

        Raises:
            MeshError: no worker serves a model.
        """
        async with (
            AsyncClient(self.url, api_key=self.api_keys[0], **self.trust) as client,
            AsyncClient(self.url, api_key=self.admin_key, **self.trust) as operator,
        ):
            model = await _served_model(client)
            about_model = (model.name, model.engine, model.batch_invariant)
            self.log.append(RunStarted(self.log.now_s, *about_model, self.seed))
            security = public_security(self.url, self.trust)
            async with aio_channel(grpc_target(self.url), security=security) as channel:
                await self._load(self._traffic(model, channel), model.name)
            await self._until_idle(operator)

    async def _load(self, traffic: Traffic, model: str) -> None:
        self.report(f"sends {len(traffic.requests)} requests to {model}, undisturbed")
        await traffic.send_each_once(streams=self.streams)
        rate = self.rate_per_s
        pace = f"{rate:g} a second" if rate else f"{self.streams} at a time"
        self.report(f"sends them again and again, {pace}")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if rate:
                group.create_task(traffic.send_at_rate(stop, per_s=rate))
            else:
                group.create_task(traffic.send_in_streams(stop, streams=self.streams))
            group.create_task(traffic.send_batches(stop))
            await self._inject_faults(group, traffic)
            stop.set()
            self.report("no more faults; waits for the open streams and batches")

    def _traffic(self, model: models_pb2.Model, channel: grpc.aio.Channel) -> Traffic:
        native: list[ChaosClient] = [
            GrpcClient(channel, model.name, api_key=key) for key in self.api_keys
        ]
        http: list[ChaosClient] = [
            OpenAIClient(self.url, model.name, api_key=key, trust=self.trust)
            for key in self.api_keys
        ]
        background: list[ChaosClient] = [
            BackgroundClient(channel, model.name, api_key=key) for key in self.api_keys
        ]
        clients = {Api.NATIVE: native, Api.COMPLETIONS: http, Api.BACKGROUND: background}
        if model.chat:
            clients[Api.CHAT] = http
        batches = [
            BatchClient(self.url, model.name, api_key=key, trust=self.trust)
            for key in (self.api_keys if self.batches else ())
        ]
        requests = make_requests(
            self.requests,
            seed=self.seed,
            apis=[*clients, *([Api.BATCH] if batches else [])],
            max_choices=max(1, model.max_choices),
            # The longest prompt has some 150 tokens.
            max_tokens=min(_MAX_TOKENS, max(1, model.context_tokens - 200)),
        )
        return Traffic(requests, clients, batches, self.log, self.seed)

    async def _inject_faults(self, group: asyncio.TaskGroup, traffic: Traffic) -> None:
        """Inject rounds of one fault of each kind, in random order; at least one round."""
        until_s = self.log.now_s + 60 * self.minutes
        kinds: list[FaultKind] = []
        number = 0
        while number == 0 or kinds or self.log.now_s < until_s:
            kinds = kinds or self._rng.sample(self.faults, len(self.faults))
            await asyncio.sleep(self._rng.uniform(self.pause_s / 10, self.pause_s))
            number += 1
            fault = group.create_task(self._inject(kinds.pop(), number, traffic))
            if not self.overlap:
                await fault

    async def _inject(self, kind: FaultKind, number: int, traffic: Traffic) -> None:
        if kind is not FaultKind.SLOW_READER:
            await self._injector.inject(kind)
            return
        fault = self._injector.injected(kind, "a client")
        await traffic.read_slowly(number)
        self._injector.recovered(fault)

    async def _until_idle(self, client: AsyncClient) -> None:
        """Log how many requests the mesh still holds once it had time to release all."""
        held: int | None = None
        try:
            async with asyncio.timeout(_IDLE_WITHIN_S):
                while (held := await _held(client)) != 0:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.report(f"{_IDLE_WITHIN_S:g} s later the mesh holds {held} requests")
        if held is not None:
            self.log.append(RunEnded(self.log.now_s, held))


async def _served_model(client: AsyncClient) -> models_pb2.Model:
    models = [model for model in await client.models() if model.workers]
    if not models:
        raise MeshError("no worker serves a model")
    return models[0]


async def _held(client: AsyncClient) -> int | None:
    """Return the requests in lanes and on workers; None while that is unknown."""
    try:
        lanes, workers = await client.lanes(), await client.workers()
    except HeadraceError:
        return None
    if not lanes:
        return None
    return sum(lane.waiting + lane.running for lane in lanes) + sum(w.running for w in workers)

"""One chaos run: every request undisturbed, then load with faults, then a wait for an idle mesh."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from headrace.chaos.clients import ChaosClient, GrpcClient, OpenAIClient
from headrace.chaos.faults import FaultInjector, FaultKind
from headrace.chaos.history import EventLog, RunEnded, RunStarted
from headrace.chaos.requests import Api, make_requests
from headrace.chaos.traffic import Traffic
from headrace.client import AsyncClient
from headrace.clock import Clock
from headrace.errors import HeadraceError
from headrace.supervisor.state.failures import MeshError
from headrace.supervisor.state.state_dir import StateDir
from headrace.v1 import models_pb2

_IDLE_WITHIN_S = 30.0
_MAX_TOKENS = 400


@dataclass(frozen=True, slots=True)
class RunOptions:
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


class Run:
    """Call `run` once.

    Args:
        report: called with what is being done.
    """

    def __init__(
        self,
        options: RunOptions,
        state_dir: StateDir,
        log: EventLog,
        clock: Clock,
        report: Callable[[str], None],
    ) -> None:
        self._options, self._log, self._clock, self._report = options, log, clock, report
        self._rng = random.Random(f"faults {options.seed}")
        self._faults = FaultInjector(state_dir, log, self._rng, report)

    async def run(self) -> None:
        """Fill the event log.

        Raises:
            MeshError: no worker serves a model.
        """
        options = self._options
        async with AsyncClient(options.url) as client:
            model = await _served_model(client)
            self._log.append(
                RunStarted(
                    *(self._log.now_s, model.name, model.engine, model.batch_invariant),
                    options.seed,
                )
            )
            async with GrpcClient(options.url, model.name) as native:
                await self._load(self._traffic(model, native), model.name)
            await self._until_idle(client)

    async def _load(self, traffic: Traffic, model: str) -> None:
        options = self._options
        self._report(f"sends {len(traffic.requests)} requests to {model}, undisturbed")
        await traffic.send_each_once(streams=options.streams)
        rate = options.rate_per_s
        pace = f"{rate:g} a second" if rate else f"{options.streams} at a time"
        self._report(f"sends them again and again, {pace}")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if rate:
                group.create_task(traffic.send_at_rate(stop, per_s=rate))
            else:
                group.create_task(traffic.send_in_streams(stop, streams=options.streams))
            await self._inject_faults(group, traffic)
            stop.set()
            self._report("no more faults; waits for the open streams")

    def _traffic(self, model: models_pb2.Model, native: GrpcClient) -> Traffic:
        http = OpenAIClient(self._options.url, model.name)
        clients: dict[Api, ChaosClient] = {Api.NATIVE: native, Api.COMPLETIONS: http}
        if model.chat:
            clients[Api.CHAT] = http
        requests = make_requests(
            self._options.requests,
            seed=self._options.seed,
            apis=list(clients),
            max_choices=max(1, model.max_choices),
            # The longest prompt has some 150 tokens.
            max_tokens=min(_MAX_TOKENS, max(1, model.context_tokens - 200)),
        )
        return Traffic(requests, clients, self._log, self._options.seed)

    async def _inject_faults(self, group: asyncio.TaskGroup, traffic: Traffic) -> None:
        """Inject rounds of one fault of each kind, in random order; at least one round."""
        options = self._options
        until_s = self._clock.monotonic_s() + 60 * options.minutes
        kinds: list[FaultKind] = []
        number = 0
        while number == 0 or kinds or self._clock.monotonic_s() < until_s:
            kinds = kinds or self._rng.sample(options.faults, len(options.faults))
            await asyncio.sleep(self._rng.uniform(options.pause_s / 10, options.pause_s))
            number += 1
            fault = group.create_task(self._inject(kinds.pop(), number, traffic))
            if not options.overlap:
                await fault

    async def _inject(self, kind: FaultKind, number: int, traffic: Traffic) -> None:
        if kind is not FaultKind.SLOW_READER:
            await self._faults.inject(kind)
            return
        fault = self._faults.injected(kind, "a client")
        await traffic.read_slowly(number)
        self._faults.recovered(fault)

    async def _until_idle(self, client: AsyncClient) -> None:
        """Log how many requests the mesh still holds once it had time to release all."""
        held: int | None = None
        try:
            async with asyncio.timeout(_IDLE_WITHIN_S):
                while (held := await _held(client)) != 0:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self._report(f"{_IDLE_WITHIN_S:g} s later the mesh holds {held} requests")
        if held is not None:
            self._log.append(RunEnded(self._log.now_s, held))


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

"""One whole trial: a quiet run, then load and faults together, then rest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
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

_REST_WITHIN_S = 30.0
_LONGEST_TOKENS = 400


@dataclass(frozen=True, slots=True)
class RunOptions:
    url: str
    faults: tuple[FaultKind, ...]
    seconds: float
    streams: int
    seed: int
    rate_per_s: float | None = None
    """Requests a second, instead of `streams` clients with one request after another."""
    pause_s: float = 3.0
    """Longest time from one fault's mending to the next fault; the shortest is a tenth of it."""
    asks: int = 48
    """Different requests."""
    overlap: bool = False
    """Strike again without waiting until what was struck is well."""


class Run:
    """`run` once.

    Args:
        tell: told in words what is being done.
    """

    def __init__(
        self,
        plan: RunOptions,
        state_dir: StateDir,
        ledger: EventLog,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        self._plan, self._ledger = plan, ledger
        self._clock, self._tell = clock, tell
        self._rng = random.Random(f"faults {plan.seed}")
        self._faults = FaultInjector(state_dir, ledger, self._rng, tell)

    async def run(self) -> None:
        """Raises MeshError if the mesh is not one that can be tried."""
        url = self._plan.url
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncClient(url))
            model = await _served_model(client)
            native = GrpcClient(url, model.name)
            stack.push_async_callback(native.close)
            traffic = self._traffic(url, model, native)
            await self._try(traffic, model)
            await self._rest(client)

    async def _try(self, traffic: Traffic, model: models_pb2.Model) -> None:
        plan = self._plan
        began = RunStarted(
            self._ledger.now_s, model.name, model.engine, model.batch_invariant, plan.seed
        )
        self._ledger.note(began)
        self._tell(f"asks {len(traffic.asks)} requests of {model.name}, undisturbed")
        await traffic.undisturbed(streams=plan.streams)
        pace = f"{plan.rate_per_s:g} a second" if plan.rate_per_s else f"{plan.streams} at a time"
        self._tell(f"asks them again and again, {pace}")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if plan.rate_per_s:
                group.create_task(traffic.at_rate(stop, per_s=plan.rate_per_s))
            else:
                group.create_task(traffic.until(stop, streams=plan.streams))
            await self._break_things(group, traffic)
            stop.set()
            self._tell("no more faults; waits for the open streams")

    def _traffic(self, url: str, model: models_pb2.Model, native: GrpcClient) -> Traffic:
        http = OpenAIClient(url, model.name)
        doors: dict[Api, ChaosClient] = {Api.NATIVE: native, Api.COMPLETIONS: http}
        if model.chat:
            doors[Api.CHAT] = http
        asks = make_requests(
            self._plan.asks,
            seed=self._plan.seed,
            doors=list(doors),
            max_choices=max(1, model.max_choices),
            # The longest prompt has some 150 tokens.
            max_tokens=min(_LONGEST_TOKENS, max(1, model.context_tokens - 200)),
        )
        return Traffic(asks, doors, self._ledger, self._plan.seed)

    async def _break_things(self, group: asyncio.TaskGroup, traffic: Traffic) -> None:
        """Rounds of one fault of each kind, in any order; at least one round."""
        plan = self._plan
        until_s = self._clock.monotonic_s() + plan.seconds
        deck: list[FaultKind] = []
        number = 0
        while number == 0 or deck or self._clock.monotonic_s() < until_s:
            deck = deck or self._rng.sample(plan.faults, len(plan.faults))
            await asyncio.sleep(self._rng.uniform(plan.pause_s / 10, plan.pause_s))
            number += 1
            strike = group.create_task(self._strike(deck.pop(), number, traffic))
            if not plan.overlap:
                await strike

    async def _strike(self, kind: FaultKind, number: int, traffic: Traffic) -> None:
        if kind is not FaultKind.SLOW_READER:
            await self._faults.strike(kind)
            return
        fault = self._faults.struck(kind, "a client")
        await traffic.slowly(number)
        self._faults.mended(fault)

    async def _rest(self, client: AsyncClient) -> None:
        """Note what the mesh still holds when it has had time to let go of everything."""
        held: int | None = None
        try:
            async with asyncio.timeout(_REST_WITHIN_S):
                while (held := await _held(client)) != 0:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self._tell(f"{_REST_WITHIN_S:g} s later the mesh holds {held} requests")
        if held is not None:
            self._ledger.note(RunEnded(self._ledger.now_s, held))


async def _served_model(client: AsyncClient) -> models_pb2.Model:
    models = [model for model in await client.models() if model.workers]
    if not models:
        raise MeshError("no worker serves a model")
    return models[0]


async def _held(client: AsyncClient) -> int | None:
    """Requests in lanes and on workers; None if nobody can say just now."""
    try:
        lanes, workers = await client.lanes(), await client.workers()
    except HeadraceError:
        return None
    if not lanes:
        return None
    return sum(lane.waiting + lane.running for lane in lanes) + sum(w.running for w in workers)

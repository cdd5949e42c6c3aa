"""How right the waits are that callers are told: a real mesh, and three times what it can do.

Requests of the scripted engine with answers of mixed lengths arrive for a while, independently of
one another. What each would have been told on its arrival is held against what it waited. Then the
lane is filled, and callers who have not the patience for it try again until they are let in: the
Retry-After that they were told first is held against that. (When the next place of a full lane
becomes free is told as well, on average: a single end comes when it likes.)

Then two tenants, of which one asks for ten times what the other does: what their streams are told
while they wait. And interactive requests while bulk ones hold every slot and make way.

python benchmarks/estimates.py --json benchmarks/results/estimates.json
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import httpx

import rig
from headrace.client import AsyncClient
from headrace.errors import CapacityError
from headrace.supervisor.state.state_dir import MeshRecord
from headrace.v1.common_pb2 import PRIORITY_INTERACTIVE, PRIORITY_STANDARD

SLOTS, WORKERS, STEP_MS = 8, 2, 10
LENGTHS = (20, 400)
"""Output tokens, evenly spread between."""
OVERLOAD = 3.0
SECONDS = 15.0
BOUND = 80
RETRY_EVERY_S = 0.1
FILLED_WITHIN_S = 1.0
PATIENCES_S = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
"""Of those who are refused because the wait is longer."""
JUDGED_FROM_S = 1.0
"""Shorter waits are within what the measuring itself takes."""
MODEL = "scripted"
TENANTS = {"big": 10 / 11, "small": 1 / 11}
"""Their parts of what is asked for."""
TENANTS_S = 30.0
"""They go on after the last that is judged came, as those it was told of were taken to."""
BULK_TOKENS, URGENT_EVERY_S, URGENT_REQUESTS = 3000, 0.3, 30
BULK_BEGUN_S = 2.0
QUEUED = re.compile(r": queue position=\d+ estimated_wait=([\d.]+)s")
UP = (
    *("--engine", "scripted", "--scripted-step-ms", str(STEP_MS), "--workers", str(WORKERS)),
    *("--set", f"worker.max_slots={SLOTS}", "--set", f"scheduler.max_waiting={BOUND}"),
    *("--set", "gateway.tenant_header=x-tenant"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What somebody was told, and what was so."""

    told_s: float
    true_s: float

    @property
    def error(self) -> float:
        return abs(self.told_s - self.true_s) / self.true_s


@dataclass(frozen=True, slots=True)
class Judged:
    what: str
    count: int
    unknown: int
    """Waited as long, and were told nothing."""
    median_error: float
    p90_error: float
    pairs: list[Pair]


def judged(what: str, pairs: Sequence[Pair], unknown: int) -> Judged:
    errors = sorted(pair.error for pair in pairs)
    p90 = statistics.quantiles(errors, n=10)[-1]
    return Judged(what, len(pairs), unknown, statistics.median(errors), p90, list(pairs))


async def answer_s(client: AsyncClient, tokens: int) -> float:
    """Stream one to its end; how long its first token took."""
    began_s, first_s = time.monotonic(), 0.0
    async for event in client.stream("wait", model=MODEL, max_tokens=tokens, ignore_eos=True):
        if event.HasField("delta") and not first_s:
            first_s = time.monotonic() - began_s
    return first_s


async def told_s(client: AsyncClient, priority: int = PRIORITY_STANDARD) -> float | None:
    lanes = await client.lanes()
    (lane,) = (each for each in lanes if each.priority == priority)
    known = lane.HasField("estimated_wait")
    return lane.estimated_wait.ToMilliseconds() / 1000 if known else None


class Load:
    """Callers of one mesh."""

    def __init__(self, client: AsyncClient, seed: int) -> None:
        self._client, self._rng = client, random.Random(seed)
        self.waits: list[Pair] = []
        self.unknown = 0
        self.refusals: list[Pair] = []

    async def overload(self) -> None:
        """Three times what it can do, until all that was let in has ended."""
        slot_s = statistics.mean(LENGTHS) * STEP_MS / 1000
        per_s = OVERLOAD * SLOTS * WORKERS / slot_s
        end_s = time.monotonic() + SECONDS
        async with asyncio.TaskGroup() as callers:
            while time.monotonic() < end_s:
                callers.create_task(self._call())
                await asyncio.sleep(self._rng.expovariate(per_s))

    async def _call(self) -> None:
        told = await told_s(self._client)
        try:
            true_s = await answer_s(self._client, self._rng.randint(*LENGTHS))
        except CapacityError:
            return  # The lane was full: judged apart.
        if true_s < JUDGED_FROM_S:
            return
        if told is None:
            self.unknown += 1
        else:
            self.waits.append(Pair(told, true_s))

    async def refuse(self) -> None:
        """Fill the lane, let nobody else come, and have those who are refused try again."""
        tokens = [self._rng.randint(*LENGTHS) for _ in range(BOUND)]
        held = [asyncio.create_task(answer_s(self._client, each)) for each in tokens]
        await asyncio.sleep(FILLED_WITHIN_S)
        await asyncio.gather(*(self._insist(patience_s) for patience_s in PATIENCES_S))
        await asyncio.gather(*held)

    async def _insist(self, patience_s: float) -> None:
        """Try until it is let in."""
        first: float | None = None
        began_s = time.monotonic()
        body = {"prompt": "a", "parameters": {"max_tokens": 1}, "patience": f"{patience_s}s"}
        async with httpx.AsyncClient(base_url=self._client.url, trust_env=False) as http:
            while True:
                path = f"/v2/models/{MODEL}:streamGenerate"
                async with http.stream("POST", path, json=body, timeout=60) as answer:
                    if answer.status_code == httpx.codes.OK:
                        break
                    told = float(answer.headers["retry-after-ms"]) / 1000
                    first = told if first is None else first
                await asyncio.sleep(RETRY_EVERY_S)
        if first is not None:
            self.refusals.append(Pair(first, time.monotonic() - began_s))


async def waited(
    http: httpx.AsyncClient, tokens: int, *, tenant: str = "default", priority: str = "standard"
) -> Pair | None:
    """One stream, read to its end: of the first wait that it is told, what was left from then
    on. None: it was told nothing, or refused."""
    began_s, told_s, told_at_s, first_s = time.monotonic(), -1.0, 0.0, 0.0
    body = {
        "prompt": "a",
        "priority": f"PRIORITY_{priority.upper()}",
        "parameters": {"max_tokens": tokens, "ignore_eos": True},
    }
    path, headers = f"/v2/models/{MODEL}:streamGenerate", {"x-tenant": tenant}
    async with http.stream("POST", path, json=body, headers=headers, timeout=120) as answer:
        async for line in answer.aiter_lines():
            if told_s < 0.0 and (said := QUEUED.match(line)):
                told_s, told_at_s = float(said[1]), time.monotonic()
            elif '"delta"' in line and not first_s:
                first_s = time.monotonic()
    if priority == "interactive":
        return Pair(0.0, first_s - began_s)
    return Pair(told_s, first_s - told_at_s) if told_s >= 0.0 and first_s else None


async def of_tenants(record: MeshRecord, seed: int) -> list[Judged]:
    """Three times what it can do, most of it one tenant's."""
    rng = random.Random(seed)
    per_s = OVERLOAD * SLOTS * WORKERS / (statistics.mean(LENGTHS) * STEP_MS / 1000)
    callers: dict[str, list[asyncio.Task[Pair | None]]] = {tenant: [] for tenant in TENANTS}
    others: set[asyncio.Task[Pair | None]] = set()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=record.url or "", trust_env=False, limits=limits) as http:
        began_s = time.monotonic()
        while (since_s := time.monotonic() - began_s) < TENANTS_S:
            (tenant,) = rng.choices(list(TENANTS), list(TENANTS.values()))
            call = asyncio.create_task(waited(http, rng.randint(*LENGTHS), tenant=tenant))
            if since_s < SECONDS:
                callers[tenant].append(call)
            others.add(call)
            await asyncio.sleep(rng.expovariate(per_s))
        await asyncio.gather(*others)
    found = []
    for tenant, calls in callers.items():
        pairs = [pair for call in calls if (pair := call.result()) is not None]
        long = [pair for pair in pairs if pair.true_s >= JUDGED_FROM_S]
        found.append(judged(f"{tenant} tenant", long or pairs, 0))
    return found


async def of_urgent(record: MeshRecord) -> Judged:
    """Told by the lanes just before each comes."""
    pairs, unknown = [], 0
    async with (
        AsyncClient(record.url or "") as client,
        httpx.AsyncClient(base_url=record.url or "", trust_env=False) as http,
    ):
        bulk = [
            asyncio.create_task(waited(http, BULK_TOKENS, priority="bulk"))
            for _ in range(2 * SLOTS * WORKERS)
        ]
        await asyncio.sleep(BULK_BEGUN_S)
        for _ in range(URGENT_REQUESTS):
            await asyncio.sleep(URGENT_EVERY_S)
            told = await told_s(client, PRIORITY_INTERACTIVE)
            found = await waited(http, 1, priority="interactive")
            assert found is not None  # of an interactive one the wait is always known
            if told is None:
                unknown += 1
            else:
                pairs.append(Pair(told, found.true_s))
        for task in bulk:
            task.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)
    return judged("interactive over bulk", pairs, unknown)


async def measure(record: MeshRecord, seed: int) -> list[Judged]:
    async with AsyncClient(record.url or "") as client:
        load = Load(client, seed)
        await load.overload()
        await load.refuse()
    found = [judged("wait", load.waits, load.unknown)]
    if len(load.refusals) > 1:
        found.append(judged("Retry-After", load.refusals, 0))
    return found


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs: list[Judged] = []
    with rig.mesh(*UP) as record:
        for seed in range(arguments.rounds):
            runs += asyncio.run(measure(record, seed))
    with rig.mesh(*UP) as record:
        for seed in range(arguments.rounds):
            runs += asyncio.run(of_tenants(record, seed))
    with rig.mesh(*UP) as record:
        runs.append(asyncio.run(of_urgent(record)))
    rows = [
        (
            run.what,
            run.count,
            run.unknown,
            f"{statistics.median(pair.told_s for pair in run.pairs):.2f} s",
            f"{statistics.median(pair.true_s for pair in run.pairs):.2f} s",
            f"{run.median_error:.0%}",
            f"{run.p90_error:.0%}",
        )
        for run in runs
    ]
    heads = ("told", "callers", "told nothing", "told p50", "true p50", "median error", "p90")
    rig.show(heads, rows)
    rig.keep(arguments.json, before, {"runs": [asdict(run) for run in runs]})


if __name__ == "__main__":
    main()

"""How right the waits are that callers are told: a real mesh, and three times what it can do.

Requests of the scripted engine with answers of mixed lengths arrive for a while, independently of
one another. What each would have been told on its arrival is held against what it waited. Then the
lane is filled, and callers who have not the patience for it try again until they are let in: the
Retry-After that they were told first is held against that. (When the next place of a full lane
becomes free is told as well, on average: a single end comes when it likes.)

python tests/bench/estimates.py --json tests/bench/results/estimates.json
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import httpx

import rig
from headrace.client import AsyncClient
from headrace.errors import CapacityError
from headrace.mesh.home import MeshRecord
from headrace.v1.common_pb2 import PRIORITY_STANDARD

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
UP = (
    *("--engine", "scripted", "--scripted-step-ms", str(STEP_MS), "--workers", str(WORKERS)),
    *("--set", f"worker.max_slots={SLOTS}", "--set", f"scheduler.max_waiting={BOUND}"),
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


async def told_s(client: AsyncClient) -> float | None:
    lanes = await client.lanes()
    (lane,) = (each for each in lanes if each.priority == PRIORITY_STANDARD)
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
    rows = [
        (run.what, run.count, run.unknown, f"{run.median_error:.0%}", f"{run.p90_error:.0%}")
        for run in runs
    ]
    rig.show(("told", "callers", "told nothing", "median error", "p90"), rows)
    rig.keep(arguments.json, before, {"runs": [asdict(run) for run in runs]})


if __name__ == "__main__":
    main()

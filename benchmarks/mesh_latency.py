"""What the whole path adds: one-token requests of the scripted engine, which takes no time.

Envoy, gateway, broker, scheduler, broker, worker, gateway, Envoy; one request at a time.

python benchmarks/mesh_latency.py --json benchmarks/results/mesh_latency.json
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import rig
from headrace.bench.cpu import cpu_seconds, difference
from headrace.bench.figures import Spread, spread
from headrace.bench.http1 import Connection
from headrace.bench.load import Load
from headrace.supervisor.state.state_dir import MeshRecord

REQUESTS = 200
PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Way:
    """How requests follow one another."""

    name: str
    pause_s: float = 0.0
    fresh: bool = False
    """A new connection for each."""
    refused: bool = False
    """Of a model that is not there: Envoy and gateway alone."""


WAYS = (
    Way("back to back, one connection"),
    Way("ten a second, one connection", pause_s=PAUSE_S),
    Way("ten a second, a connection each", pause_s=PAUSE_S, fresh=True),
    Way("refused at the door (404)", pause_s=PAUSE_S, refused=True),
)


@dataclass(frozen=True, slots=True)
class Latency:
    way: str
    first: Spread
    """To the first bytes of the answer, which hold its token."""
    end: Spread
    cpu_ms_per_request: float
    """Of all processes, with what they do anyway."""


async def connections(url: str, way: Way) -> AsyncIterator[Connection]:
    """One for each request."""
    connection = Connection(url)
    for _ in range(REQUESTS):
        yield connection
        if way.fresh:
            await connection.close()
        await asyncio.sleep(way.pause_s)
    await connection.close()


async def times_s(load: Load, way: Way) -> list[tuple[float, float]]:
    """To the first bytes and to the end, of each request."""
    found: list[tuple[float, float]] = []
    status = 404 if way.refused else 200
    async for connection in connections(load.url, way):
        body = load.body(len(found))
        began_s = time.perf_counter()
        answer = await connection.post(load.path, body)
        pieces = [time.perf_counter() - began_s async for _ in answer.body]
        if answer.status != status:
            sys.exit(f"status {answer.status} instead of {status}")
        found.append((pieces[0], time.perf_counter() - began_s))
    return found


def measure(record: MeshRecord, load: Load, way: Way) -> Latency:
    if way.refused:
        load = dataclasses.replace(load, model="no-such-model")
    before = cpu_seconds(record)
    found = asyncio.run(times_s(load, way))
    used_s = sum(difference(before, cpu_seconds(record)).values())
    return Latency(
        way.name,
        spread([first for first, _ in found]),
        spread([end for _, end in found]),
        round(used_s / REQUESTS * 1000, 2),
    )


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs: list[Latency] = []
    with rig.mesh("--engine", "scripted") as record:
        load = rig.load_on(record, max_tokens=1)
        measure(record, load, WAYS[0])
        for _ in range(arguments.rounds):
            runs += [measure(record, load, way) for way in WAYS]
    rows = []
    for way in WAYS:
        its = [run for run in runs if run.way == way.name]
        rows.append(
            (
                way.name,
                f"{rig.median([r.first.p50_ms for r in its]):.1f} ms",
                f"{rig.median([r.first.p99_ms for r in its]):.1f} ms",
                f"{rig.median([r.end.p50_ms for r in its]):.1f} ms",
                f"{rig.median([r.cpu_ms_per_request for r in its]):.1f} ms",
            )
        )
    rig.show(("requests", "first p50", "first p99", "end p50", "CPU each"), rows)
    results = {"requests": REQUESTS, "load": asdict(load), "runs": [asdict(r) for r in runs]}
    rig.keep(arguments.json, before, results)


if __name__ == "__main__":
    main()

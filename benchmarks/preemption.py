"""First tokens of interactive requests while bulk ones hold every slot, preempted or not.

The scripted engine, 8 slots, 20 ms a step; 16 bulk streams of 500 tokens each, begun anew as they
end; interactive requests one at a time. Without preemption each waits for a bulk one's end.

python benchmarks/preemption.py --json benchmarks/results/preemption.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

import rig
from headrace.bench.figures import Spread, spread
from headrace.bench.http1 import Connection
from headrace.bench.load import Load

BULK_STREAMS, BULK_TOKENS, SLOTS = 16, 500, 8
REQUESTS, WAITING_REQUESTS = 60, 3
"""Fewer than bulk ones make way for: each of the eight that run does so ten times
(`max_preemptions`), and then the next waits for an end. And where each waits for one."""
WARM_S = 2.0
"""Until the bulk streams hold every slot."""
UP = ("--engine", "scripted", "--scripted-step-ms", "20", "--set", f"worker.max_slots={SLOTS}")
OFF = ("--set", "scheduler.preemption=false")


@dataclass(frozen=True, slots=True)
class Run:
    round: int
    way: str
    first: Spread


async def answered_s(load: Load, number: int, tier: str) -> float:
    """Time to the end; of one token, as the interactive ones have, it is that of the token."""
    body = json.loads(load.body(number)) | {"service_tier": tier}
    connection = Connection(load.url)
    try:
        began_s = time.perf_counter()
        answer = await connection.post(load.path, json.dumps(body).encode())
        if answer.status != 200:
            sys.exit(f"status {answer.status}")
        async for _ in answer.body:
            pass
        return time.perf_counter() - began_s
    finally:
        await connection.close()


async def bulk_stream(load: Load, number: int) -> None:
    while True:
        await answered_s(load, number, "flex")


async def times_s(load: Load, bulk: Load | None, requests: int) -> list[float]:
    streams = [
        asyncio.create_task(bulk_stream(bulk, 1000 + i)) for i in range(BULK_STREAMS) if bulk
    ]
    await asyncio.sleep(WARM_S)
    found = [await answered_s(load, number, "priority") for number in range(requests)]
    for stream in streams:
        stream.cancel()
        with suppress(asyncio.CancelledError):
            await stream
    return found


def measure(round: int, way: str, *up: str, bulk: bool) -> Run:
    with rig.mesh(*UP, *up) as record:
        load = rig.load_on(record, max_tokens=1)
        long = rig.load_on(record, max_tokens=BULK_TOKENS) if bulk else None
        requests = WAITING_REQUESTS if up else REQUESTS
        return Run(round, way, spread(asyncio.run(times_s(load, long, requests))))


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs = []
    for round in range(arguments.rounds):
        runs.append(measure(round, "no bulk work", bulk=False))
        runs.append(measure(round, "preemption", bulk=True))
        runs.append(measure(round, "no preemption", *OFF, bulk=True))
    rows = []
    for way in dict.fromkeys(run.way for run in runs):
        its = [run for run in runs if run.way == way]
        p50, p99 = (rig.median([getattr(r.first, p) for r in its]) for p in ("p50_ms", "p99_ms"))
        rows.append((way, f"{p50:.0f} ms", f"{p99:.0f} ms"))
    rig.show(("bulk work", "first token p50", "p99"), rows)
    rig.keep(arguments.json, before, {"requests": REQUESTS, "runs": [asdict(r) for r in runs]})


if __name__ == "__main__":
    main()

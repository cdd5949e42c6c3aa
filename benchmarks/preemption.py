"""First tokens of urgent requests while bulk work holds every slot: a client's, or a batch's rows.

The scripted engine, 8 slots, 20 ms a step. On one mesh, in turns: nothing else; a client that keeps
64 bulk requests of 200 tokens open; a batch of the same requests, which keeps 64 rows in flight.
Beside each, interactive requests of one token, one after the other, then standard ones. At last, on
another mesh, some without preemption, which wait for the end of a bulk request.

python benchmarks/preemption.py --rounds 5 --json benchmarks/results/preemption.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass

import httpx

import rig
from headrace.bench.figures import Spread, spread
from headrace.bench.http1 import Connection
from headrace.bench.load import Load

IN_FLIGHT, BULK_TOKENS, SLOTS, ROWS = 64, 200, 8, 1000
REQUESTS, WAITING_REQUESTS = 100, 3
"""Of each kind in a turn; and where each waits for the end of a bulk one."""
KINDS = {"interactive": "priority", "standard": "default"}
UP = (
    *("--engine", "scripted", "--scripted-step-ms", "20"),
    *("--set", f"worker.max_slots={SLOTS}", "--set", "gateway.max_patience_s=3600"),
)
OFF = ("--set", "scheduler.preemption=false")


@dataclass(frozen=True, slots=True)
class Turn:
    round: int
    beside: str
    priority: str
    first: Spread
    times_ms: list[float]


async def answered_s(load: Load, number: int, tier: str) -> float:
    """Time to the end; of one token, as the urgent ones have, it is that of the token."""
    body = json.loads(load.body(number)) | {"service_tier": tier}
    connection = Connection(load.url)
    try:
        began_s = time.perf_counter()
        answer = await connection.post(load.path, json.dumps(body).encode())
        text = b"".join([part async for part in answer.body])
        if answer.status != 200:
            sys.exit(f"status {answer.status}: {text.decode()}")
        return time.perf_counter() - began_s
    finally:
        await connection.close()


def http(load: Load) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=load.url, trust_env=False, timeout=60)


async def until_running(load: Load, requests: int) -> None:
    async with http(load) as client:
        while True:
            workers = (await client.get("/v2/workers")).json()["workers"]
            if sum(worker.get("running", 0) for worker in workers) == requests:
                return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def nothing(load: Load) -> AsyncIterator[None]:
    await until_running(load, 0)
    yield


@asynccontextmanager
async def client(load: Load) -> AsyncIterator[None]:
    async def stream(number: int) -> None:
        while True:
            await answered_s(load, number, "flex")

    await until_running(load, 0)
    streams = [asyncio.create_task(stream(1000 + i)) for i in range(IN_FLIGHT)]
    try:
        await until_running(load, SLOTS)
        yield
    finally:
        for each in streams:
            each.cancel()
        await asyncio.gather(*streams, return_exceptions=True)


@asynccontextmanager
async def batch(load: Load) -> AsyncIterator[None]:
    lines = (
        b'{"custom_id": "%d", "method": "POST", "url": "%s", "body": %s}'
        % (number, load.path.encode(), load.body(1000 + number))
        for number in range(ROWS)
    )
    await until_running(load, 0)
    async with http(load) as client:
        form = {"file": ("rows.jsonl", b"\n".join(lines))}
        file = (await client.post("/v1/files", files=form, data={"purpose": "batch"})).json()
        body = {
            "input_file_id": file["id"],
            "endpoint": load.path,
            "completion_window": "24h",
        }
        made = (await client.post("/v1/batches", json=body)).json()
        await until_running(load, SLOTS)
        yield
        made = (await client.post(f"/v1/batches/{made['id']}/cancel")).json()
        while made["status"] != "cancelled":
            await asyncio.sleep(0.1)
            made = (await client.get(f"/v1/batches/{made['id']}")).json()


WORK: dict[str, Callable[[Load], AbstractAsyncContextManager[None]]] = {
    "nothing": nothing,
    "a client's bulk requests": client,
    "a batch": batch,
}


async def turns(load: Load, bulk: Load, round: int, beside: str, requests: int) -> list[Turn]:
    found = []
    async with WORK[beside](bulk):
        for priority, tier in KINDS.items():
            times_s = [await answered_s(load, number, tier) for number in range(requests)]
            times_ms = [float(f"{time_s * 1000:.1f}") for time_s in times_s]
            found.append(Turn(round, beside, priority, spread(times_s), times_ms))
    return found


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    found: list[Turn] = []
    common = {"chat": False, "stream": False}
    with rig.mesh(*UP) as record:
        load = rig.load_on(record, max_tokens=1, **common)
        bulk = rig.load_on(record, max_tokens=BULK_TOKENS, **common)
        for round in range(arguments.rounds):
            # Why in both orders: other load of the machine comes and goes.
            for beside in list(WORK)[:: -1 if round % 2 else 1]:
                found += asyncio.run(turns(load, bulk, round, beside, REQUESTS))
    with rig.mesh(*UP, *OFF) as record:
        load = rig.load_on(record, max_tokens=1, **common)
        bulk = rig.load_on(record, max_tokens=BULK_TOKENS, **common)
        without = asyncio.run(turns(load, bulk, 0, "a batch", WAITING_REQUESTS))
    rows: list[tuple[str, ...]] = []
    for beside in WORK:
        for priority in KINDS:
            its = [t for t in found if (t.beside, t.priority) == (beside, priority)]
            p50, p99 = (
                rig.median([getattr(t.first, p) for t in its]) for p in ("p50_ms", "p99_ms")
            )
            of_all = spread([each / 1000 for t in its for each in t.times_ms])
            figures = (p50, p99, of_all.p99_ms)
            rows.append((beside, priority, *(f"{figure:.0f} ms" for figure in figures)))
    for turn in without:
        first = turn.first
        row = (f"{turn.beside}, no preemption", turn.priority)
        rows.append((*row, f"{first.p50_ms:.0f} ms", f"{first.p99_ms:.0f} ms"))
    rig.show(("beside", "requests", "first token p50", "p99", "p99 of all rounds"), rows)
    results = {
        "requests": REQUESTS,
        "turns": [asdict(turn) for turn in found],
        "without_preemption": [asdict(turn) for turn in without],
    }
    rig.keep(arguments.json, before, results)


if __name__ == "__main__":
    main()

"""A batch against a client that sends the same requests: throughput, and what others feel of it.

One mesh, in turns: a client keeps 64 requests of the bulk lane open, then a batch of the same
requests runs, which keeps 64 rows in flight. The last turn is beside two interactive streams, one
request after the other, whose times are compared. CPU time is that of all processes of the mesh.

python benchmarks/batch.py --rounds 3 --json benchmarks/results/batch.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import httpx

import rig
from headrace.bench.cpu import cpu_seconds, difference
from headrace.bench.figures import Outcome, figures
from headrace.bench.load import Load, run
from headrace.supervisor.state.state_dir import MeshRecord

IN_FLIGHT, STREAMS, TOKENS = 64, 2, 32
FINAL = ("completed", "failed", "expired", "cancelled")


class BulkLoad(Load):
    """In the lane of rows."""

    def body(self, number: int) -> bytes:
        """Return a body as `Load` does, for the bulk lane."""
        return json.dumps(json.loads(super().body(number)) | {"service_tier": "flex"}).encode()


@dataclass(frozen=True, slots=True)
class Turn:
    way: str
    """client or batch."""
    rows_per_s: float
    cpu_ms_per_row: dict[str, float]
    """By process of the mesh."""


async def by_client(load: Load, rows: int) -> None:
    """Send the requests.

    Raises:
        SystemExit: one failed.
    """
    outcomes = await run(load, concurrency=IN_FLIGHT, requests=rows)
    if errors := [outcome.error for outcome in outcomes if outcome.error]:
        sys.exit(f"{len(errors)} requests failed: {errors[0]}")


async def by_batch(load: Load, rows: int) -> None:
    """Run the same requests as a batch, from its upload until its output is complete.

    Raises:
        SystemExit: a row failed.
    """
    lines = (
        b'{"custom_id": "%d", "method": "POST", "url": "%s", "body": %s}'
        % (number, load.path.encode(), load.body(number))
        for number in range(rows)
    )
    async with httpx.AsyncClient(base_url=load.url, trust_env=False, timeout=60) as http:
        form = {"file": ("rows.jsonl", b"\n".join(lines))}
        file = (await http.post("/v1/files", files=form, data={"purpose": "batch"})).json()
        body = {
            "input_file_id": file["id"],
            "endpoint": load.path,
            "completion_window": "24h",
        }
        batch = (await http.post("/v1/batches", json=body)).json()
        while batch["status"] not in FINAL:
            await asyncio.sleep(0.5)
            batch = (await http.get(f"/v1/batches/{batch['id']}")).json()
    if batch["request_counts"]["completed"] != rows:
        sys.exit(f"{batch['status']}: {batch['request_counts']}, {batch['errors']}")


WAYS: dict[str, Callable[[Load, int], Awaitable[None]]] = {"client": by_client, "batch": by_batch}


async def beside_streams(load: Load, work: Awaitable[None]) -> dict[str, Any]:
    """Return the figures of interactive streams that go on while the work is done."""
    outcomes: list[Outcome] = []

    async def stream() -> None:
        for _ in count():
            outcomes.extend(await run(load, concurrency=1, requests=1))

    streams = [asyncio.create_task(stream()) for _ in range(STREAMS)]
    try:
        await work
    finally:
        for each in streams:
            each.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    found = figures(outcomes, concurrency=STREAMS, cpu_s={}, client_cpu_s=0.0)
    spreads = {"ttft": found.ttft, "inter_token": found.inter_token, "latency": found.latency}
    return {"streams": found.requests} | {name: asdict(each) for name, each in spreads.items()}


def measure(record: MeshRecord, load: Load, way: str, rows: int) -> Turn:
    before, began_s = cpu_seconds(record), time.perf_counter()
    asyncio.run(WAYS[way](load, rows))  # type: ignore[arg-type]
    took_s, used = time.perf_counter() - began_s, difference(before, cpu_seconds(record))
    return Turn(
        way,
        round(rows / took_s, 1),
        {name: round(s / rows * 1000, 2) for name, s in used.items()},
    )


def main() -> None:
    options = rig.options(__doc__ or "")
    options.add_argument("--rows", type=int, default=2000)
    options.add_argument("--engine", default="", help="of the mesh; empty: the default model")
    options.add_argument("--step-ms", type=int, default=0, help="of the scripted engine")
    given = options.parse_args()
    before, rows = rig.facts(), given.rows
    up = ("--engine", given.engine) if given.engine else ()
    if given.step_ms:
        up = (*up, "--scripted-step-ms", str(given.step_ms))
    common = {"max_tokens": TOKENS, "chat": False}
    with rig.mesh(*up) as record:
        interactive = rig.load_on(record, **common)
        assert record.url is not None
        bulk = BulkLoad(record.url, record.models[0], stream=False, ignore_eos=True, **common)  # type: ignore[arg-type]
        measure(record, bulk, "client", 2 * IN_FLIGHT)
        turns = [measure(record, bulk, way, rows) for _ in range(given.rounds) for way in WAYS]
        beside = {
            way: asyncio.run(beside_streams(interactive, work(bulk, rows // 2)))
            for way, work in WAYS.items()
        }
    rates = {way: [turn.rows_per_s for turn in turns if turn.way == way] for way in WAYS}
    ratio = rig.median([b / c for b, c in zip(rates["batch"], rates["client"], strict=True)])
    rig.show(
        ("way", "rows/s", "streams beside it: first token p50 / p99", "whole p50 / p99"),
        [
            (
                way,
                rig.median(rates[way]),
                f"{beside[way]['ttft']['p50_ms']:.0f} / {beside[way]['ttft']['p99_ms']:.0f} ms",
                f"{beside[way]['latency']['p50_ms']:.0f} / {beside[way]['latency']['p99_ms']:.0f}"
                " ms",
            )
            for way in WAYS
        ],
    )
    print(f"batch / client: {ratio:.2f}")
    results = {
        "rows": rows,
        "tokens": TOKENS,
        "in_flight": IN_FLIGHT,
        "mesh": up,
        "median_ratio_of_turns": round(ratio, 3),
        "turns": [asdict(turn) for turn in turns],
        "beside_streams": beside,
    }
    rig.keep(given.json, before, results)


if __name__ == "__main__":
    main()

"""How soon a full lane is refused, through Envoy: small bodies and large ones.

python benchmarks/refusals.py --json benchmarks/results/refusals.json

The scripted engine with one slot, which one request holds, and a lane of four, which is full. Then
requests that are refused with 429, one after the other, and from eight clients at once: with a
prompt of a word, of 64 KiB, and of 192 KiB, near the longest that is not refused for its length.
Bytes have to be read and parsed either way.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict
from typing import Any

import httpx

import rig
from headrace.bench.figures import spread

BOUND_MS = 20.0
"""Of the 99th percentile of small bodies that come one after the other."""
WAITING = 4
REQUESTS = 400
BODIES = {"small": "Hello", "64 KiB": "word " * 13_107, "192 KiB": "word " * 39_321}
LONG = {"model": "scripted", "prompt": "a b c", "max_tokens": 4000, "ignore_eos": True}


async def refused(http: httpx.AsyncClient, prompt: str, requests: int) -> tuple[list[float], int]:
    """Seconds that each took; how many were not refused as a full lane."""
    took: list[float] = []
    others = 0
    for _ in range(requests):
        began_s = time.perf_counter()
        answer = await http.post("/v1/completions", json=LONG | {"prompt": prompt})
        took.append(time.perf_counter() - began_s)
        others += answer.json().get("error", {}).get("code") != "lane_full"
    return took, others


async def measure(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=600) as http:
        holders = await fill(http)
        runs: dict[str, Any] = {}
        for name, prompt in BODIES.items():
            for at_once in (1, 8):
                each = REQUESTS // at_once // (1 if name == "small" else 4)
                found = await asyncio.gather(*(refused(http, prompt, each) for _ in range(at_once)))
                took = [seconds for part, _ in found for seconds in part]
                runs[f"{name}, {at_once} at once"] = {
                    "requests": len(took),
                    "not_refused": sum(others for _, others in found),
                    **asdict(spread(took)),
                    "max_ms": round(max(took) * 1000, 3),
                }
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)
    return runs


async def fill(http: httpx.AsyncClient) -> list[asyncio.Task[httpx.Response]]:
    """Requests that hold the slot and every place of the lane: as many as are not refused."""
    held: list[asyncio.Task[httpx.Response]] = []
    while True:
        asking = asyncio.create_task(http.post("/v1/completions", json=LONG))
        done, _ = await asyncio.wait({asking}, timeout=1.0)
        if done:
            assert asking.result().status_code == 429, asking.result().text
            return held
        held.append(asking)


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    facts = rig.facts()
    scripted = ("--engine", "scripted", "--scripted-step-ms", "100")
    bounds = ("--set", "worker.max_slots=1", "--set", f"scheduler.max_waiting={WAITING}")
    with rig.mesh(*scripted, *bounds) as record:
        assert record.url is not None, "the mesh is up"
        runs = asyncio.run(measure(record.url))
    rig.show(
        ("refused", "requests", "p50 ms", "p99 ms", "max ms"),
        [
            (name, run["requests"], run["p50_ms"], run["p99_ms"], run["max_ms"])
            for name, run in runs.items()
        ],
    )
    rig.keep(arguments.json, facts, {"max_waiting": WAITING, "refusals": runs})
    if any(run["not_refused"] for run in runs.values()):
        sys.exit("some were not refused as a full lane")
    if runs["small, 1 at once"]["p99_ms"] > BOUND_MS:
        sys.exit(f"missed: p99 within {BOUND_MS:g} ms")


if __name__ == "__main__":
    main()

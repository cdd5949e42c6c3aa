"""Bodies that nobody should send, by tens of thousands: what they are told, what they break.

PYTHONPATH=tests python benchmarks/fuzzing.py --json benchmarks/results/fuzzing.json

First at the API of a gateway in this process, which read, check and tokenise as they do
everywhere, before a mesh that answers at once: JSON as Envoy hands it over, and typed messages, by
turns. Then to a whole mesh of the model that ships, through Envoy: there, forms and tools reach the
engine. Every body has a number, and the same number makes the same body.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc
import httpx
import psutil

import rig
from headrace.supervisor.state.state_dir import MeshRecord
from helpers.fuzzed import TYPED, VALID, body, message
from helpers.fuzzed_api import fuzzed_api, posted, told

AT_ONCE = 8
FAULTS = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "500", "502", "503", "504", "broken"}
SHORT = {"max_tokens": 4}


@dataclass
class Told:
    """What callers heard."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def hear(self, answer: str, what: str) -> None:
        self.answers[answer] += 1
        if answer in FAULTS:
            self.faults.append(f"{answer}: {what}")


async def drive(sends: Iterator[tuple[str, Callable[[], Awaitable[str]]]], heard: Told) -> None:
    async def one() -> None:
        for what, send in sends:
            try:
                answer = await send()
            except (httpx.HTTPError, grpc.aio.AioRpcError, TimeoutError) as error:
                answer = "broken"
                what = f"{what}: {type(error).__name__} {error}"
            heard.hear(answer, what)

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))


def luck(path: str, number: int) -> Random:
    return Random(f"{path} {number}")


def api_bodies(
    channel: grpc.aio.Channel, first: int, count: int
) -> Iterator[tuple[str, Callable[[], Awaitable[str]]]]:
    ways = [*((path, False) for path in VALID), *((path, True) for path in TYPED)]
    turns = itertools.islice(itertools.cycle(ways), count)
    for number, (path, is_typed) in enumerate(turns, start=first):

        async def send(path: str = path, number: int = number, is_typed: bool = is_typed) -> str:
            if is_typed:
                return (await told(channel, path, message(path, luck(path, number))))[0]
            return str((await posted(channel, path, body(path, luck(path, number))))[0])

        yield f"{'typed ' if is_typed else ''}{path} {number}", send


def through_envoy(
    http: httpx.AsyncClient, first: int, count: int
) -> Iterator[tuple[str, Callable[[], Awaitable[str]]]]:
    paths = [path for path in VALID if "sense" not in path]
    for number, path in enumerate(itertools.islice(itertools.cycle(paths), count), start=first):

        async def send(path: str = path, number: int = number) -> str:
            data = body(path, luck(path, number))
            answer = await http.post(path, content=data)
            return str(answer.status_code)

        yield f"{path} {number}", send


async def api_phase(first: int, count: int) -> Told:
    heard = Told()
    async with fuzzed_api() as api, grpc.aio.insecure_channel(api.address) as channel:
        await drive(api_bodies(channel, first, count), heard)
    return heard


async def mesh_phase(record: MeshRecord, first: int, count: int) -> Told:
    heard = Told()
    assert record.url is not None, "the mesh is up"
    async with httpx.AsyncClient(base_url=record.url, trust_env=False, timeout=120) as http:
        await drive(through_envoy(http, first, count), heard)
        good = {"model": "valley", "prompt": "Hello", **SHORT}
        answer = await http.post("/v1/completions", json=good)
        heard.hear(f"{answer.status_code} to a good one", "the last")
    return heard


def found(name: str, heard: Told, count: int, seconds: float) -> dict[str, Any]:
    answers = dict(sorted(heard.answers.items()))
    print(f"{name}: {count} in {seconds:.0f} s: {answers}; faults {len(heard.faults)}")
    for fault in heard.faults[:20]:
        print("   ", fault[:300])
    return {"sent": count, "seconds": round(seconds, 1), "answers": answers, "faults": heard.faults}


def alive(pid: int | None) -> bool:
    return pid is not None and psutil.pid_exists(pid)


def main() -> int:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--first", type=int, default=0, help="number of the first body")
    parser.add_argument("--api", type=int, default=30_000, help="bodies for the API")
    parser.add_argument("--mesh", type=int, default=3_000, help="bodies for a whole mesh")
    chosen = parser.parse_args()
    before, runs = rig.facts(), dict[str, Any]()
    if chosen.api:
        began_s = time.monotonic()
        heard = asyncio.run(api_phase(chosen.first, chosen.api))
        runs["api"] = found("api", heard, chosen.api, time.monotonic() - began_s)
    if chosen.mesh:
        with rig.mesh() as record:
            began_s = time.monotonic()
            heard = asyncio.run(mesh_phase(record, chosen.first, chosen.mesh))
            runs["mesh"] = found("mesh", heard, chosen.mesh, time.monotonic() - began_s)
            runs["mesh"]["died"] = [p.name for p in record.processes if not alive(p.pid)]
            print("died:", runs["mesh"]["died"])
    rig.keep(chosen.json, before, runs)
    return int(any(run["faults"] or run.get("died") for run in runs.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Three times as many requests as the mesh can serve, and what comes of those it can.

python benchmarks/overload.py --json benchmarks/results/overload.json

The scripted engine at 20 ms a step, 32 slots, answers of 50 tokens. First its capacity, by clients
that wait for each other; then half of that, at a steady rate; then three times of it; then half
again. Goodput: requests served to their end, per second, of the capacity. Recovery: from the end of
the load until half the capacity finds first tokens as soon as it did before.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

import rig
from headrace.bench.figures import Outcome, Spread, spread
from headrace.bench.load import Load, run
from headrace.supervisor.state.state_dir import MeshRecord

SLOTS, STEP_MS, TOKENS = 32, 20, 50
MAX_WAITING = 256
"""Of the lane: some eight seconds of work, which it takes that long to empty, and twice as long
while half of the capacity keeps coming: recovery cannot be faster than the bound allows."""
WINDOW_S = 2.0
RAMP_S = 10.0
"""Of the overload, until the lane is full: goodput and memory count from then on."""
WATCHED = ("gateway", "scheduler", "worker", "envoy", "nats")


@dataclass(frozen=True, slots=True)
class Phase:
    """Requests that came at a steady rate, with times in seconds since the phase began."""

    name: str
    rate_per_s: float
    seconds: float
    began_s: float
    outcomes: list[Outcome]

    @property
    def served(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.error is None]

    def first_token(self, *, since_s: float = 0.0, until_s: float = float("inf")) -> Spread:
        """Of requests that were sent in between."""
        found = (
            each.text_times_s[0] - each.began_s
            for each in self.served
            if since_s <= each.began_s - self.began_s < until_s
        )
        return spread(list(found))

    def served_per_s(self, *, since_s: float) -> float:
        ends = (each.ended_s - self.began_s for each in self.served)
        return sum(since_s <= end < self.seconds for end in ends) / (self.seconds - since_s)


async def steady(name: str, load: Load, *, rate_per_s: float, seconds: float) -> Phase:
    """Requests that come whether or not earlier ones have ended; returns when all have."""
    rng, began_s = random.Random(name), time.perf_counter()
    tasks: list[asyncio.Task[list[Outcome]]] = []
    due_s = began_s
    async with asyncio.TaskGroup() as group:
        while due_s < began_s + seconds:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            tasks.append(group.create_task(run(load, concurrency=1, requests=1)))
            due_s += rng.expovariate(rate_per_s)
    outcomes = [outcome for task in tasks for outcome in task.result()]
    return Phase(name, rate_per_s, seconds, began_s, outcomes)


async def phases(load: Load, record: MeshRecord, seconds: float) -> dict[str, Any]:
    """Everything that is measured."""
    whole = await run(load, concurrency=2 * SLOTS, requests=16 * SLOTS)
    took_s = max(each.ended_s for each in whole) - min(each.began_s for each in whole)
    capacity = len(whole) / took_s
    before = await steady("before", load, rate_per_s=capacity / 2, seconds=20)
    memory: list[dict[str, float]] = []
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch(record, memory))
        # Why together: what comes after the load is to meet the lane that it left behind.
        over = group.create_task(steady("overload", load, rate_per_s=3 * capacity, seconds=seconds))
        await asyncio.sleep(seconds)
        after = await steady("after", load, rate_per_s=capacity / 2, seconds=60)
        await over
        watching.cancel()
    return summary(capacity, before, over.result(), after, memory)


async def watch(record: MeshRecord, memory: list[dict[str, float]]) -> None:
    """Resident MiB of every process, by name, every few seconds."""
    pids = {p.name: p.pid for p in record.processes if p.role in WATCHED}
    while True:
        sizes = {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}
        memory.append({name: round(size / 2**20, 1) for name, size in sizes.items()})
        await asyncio.sleep(RAMP_S / 2)


def summary(
    capacity: float, before: Phase, over: Phase, after: Phase, memory: Sequence[dict[str, float]]
) -> dict[str, Any]:
    usual = before.first_token()
    steps = range(int(after.seconds / WINDOW_S))
    windows = [
        after.first_token(since_s=n * WINDOW_S, until_s=(n + 1) * WINDOW_S).p99_ms for n in steps
    ]
    good_ms = 2 * (usual.p99_ms or 0.0) + 100
    recovered = (n for n, p99_ms in enumerate(windows) if p99_ms is not None and p99_ms <= good_ms)
    first = next(recovered, None)
    in_overload = memory[2 : int(over.seconds / (RAMP_S / 2))]
    errors = Counter(
        (each.error or "").partition("{")[0].strip() or "served" for each in over.outcomes
    )
    return {
        "capacity_per_s": round(capacity, 2),
        "offered_per_s": round(len(over.outcomes) / over.seconds, 2),
        "goodput_of_capacity": round(over.served_per_s(since_s=RAMP_S) / capacity, 3),
        "overload": dict(errors),
        "first_token_before": asdict(usual),
        "first_token_overload": asdict(over.first_token(since_s=RAMP_S)),
        "first_token_after_by_window_p99_ms": windows,
        "recovered_within_s": None if first is None else (first + 1) * WINDOW_S,
        "after_errors": sum(each.error is not None for each in after.outcomes),
        "resident_mib_overload_begun": in_overload[0],
        "resident_mib_overload_ending": in_overload[-1],
    }


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=120.0, help="of overload")
    arguments = parser.parse_args()
    facts = rig.facts()
    scripted = ("--engine", "scripted", "--scripted-step-ms", str(STEP_MS))
    bounds = (f"worker.max_slots={SLOTS}", f"scheduler.max_waiting={MAX_WAITING}")
    with rig.mesh(*scripted, "--set", bounds[0], "--set", bounds[1]) as record:
        load = rig.load_on(record, max_tokens=TOKENS)
        found = asyncio.run(phases(load, record, arguments.seconds))
    rig.show(("", ""), list(found.items()))
    results = {"slots": SLOTS, "step_ms": STEP_MS, "max_waiting": MAX_WAITING, **found}
    rig.keep(arguments.json, facts, {"seconds": arguments.seconds, "load": asdict(load), **results})
    if found["goodput_of_capacity"] < 0.9 or (found["recovered_within_s"] or 99) > 30:
        sys.exit("missed: goodput of 90 % of the capacity, and p99 back within 30 s")


if __name__ == "__main__":
    main()

"""What a decision on a quota costs, and that no limit is ever passed.

python benchmarks/quota.py --json benchmarks/results/quota.json

Four processes that call as gateways do, a scheduler process that keeps the quotas, a real broker:

cost    each process keeps 64 reservations in flight, of one tenant whose limits are never reached;
        decisions per second, and the CPU time of each decision in gateways, broker and keeper
burst   2,000 reservations at once, 500 from each process; the limit lets a part of them through
kills   each process keeps 8 reservations in flight against a limit of a minute, for 100 s, while
        three keepers and then the broker are killed with SIGKILL; every reservation is repeated
        with its id until it is answered. A judge who reads the journal compares what was granted
        with what the processes were answered, and finds the fullest 60 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

import rig
from headrace.bench.figures import Spread, spread
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.errors import QuotaUnavailable
from headrace.internal.v1.access_pb2 import Limits
from headrace.quota import QuotaClient
from headrace.testing.nats_server import NatsServer, nats_server

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers.quota_judge import Charged, JournalHistory
from helpers.running_keeper import publish_tables, reservation

GATEWAYS = 4
IN_FLIGHT = 64
COST_S = 6.0
BURST = 2000
BURST_LIMIT = 120_000
KILLS_S = 100.0
KILLS_PACE_S = 0.02
KILLS_LIMIT = 6_000_000
"""It is reached some time before each minute is over."""
KEEPERS = 3
ENDLESS = Limits(
    requests_per_minute=10**9,
    tokens_per_minute=10**12,
    requests_per_day=10**9,
    tokens_per_day=10**12,
)


@dataclass(slots=True)
class Answers:
    """Of one process."""

    granted: dict[str, int]
    """Tokens by reservation id; ids only where the journal is to be compared."""
    refused: int
    unavailable: int
    cpu_s: float
    seconds: float
    latencies_s: list[float]


class Caller:
    """One process that calls as a gateway does."""

    def __init__(self, client: QuotaClient, name: str, *, repeats: bool) -> None:
        self._client, self._name, self._repeats = client, name, repeats
        self.answers = Answers({}, 0, 0, 0.0, 0.0, [])

    async def keep_in_flight(self, count: int, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        await asyncio.gather(*(self._call_until(end_s, task) for task in range(count)))

    async def burst(self, count: int) -> None:
        choose = random.Random(self._name)
        calls = (self._reserve(f"{self._name}.{i}", choose.randint(50, 200)) for i in range(count))
        await asyncio.gather(*calls)

    async def _call_until(self, end_s: float, task: int) -> None:
        choose, number = random.Random(f"{self._name}.{task}"), 0
        while time.monotonic() < end_s:
            number += 1
            name = f"{self._name}.{task}.{number}"
            await self._reserve(name, choose.randint(50, 200))
            if self._repeats:
                await asyncio.sleep(KILLS_PACE_S)

    async def _reserve(self, name: str, tokens: int) -> None:
        began_s = time.perf_counter()
        while True:
            try:
                reply = await self._client.reserve(reservation(name, tokens))
                break
            except QuotaUnavailable:
                self.answers.unavailable += 1
                if not self._repeats:
                    return
        self.answers.latencies_s.append(time.perf_counter() - began_s)
        if reply.HasField("refusal"):
            self.answers.refused += 1
            return
        self.answers.granted[name] = tokens
        self._client.confirm(name, tenant="acme")


async def gateway(url: str, name: str, what: str, begin_s: float) -> None:
    """What one of the processes does: wait until it is time, call, and print the answers."""
    bus = await connect(url, name=name, replicas=None)
    client = QuotaClient(bus, name, SystemClock())
    running = asyncio.create_task(client.run())
    caller = Caller(client, name, repeats=what == "kills")
    await asyncio.sleep(max(0.0, begin_s - time.time()))
    cpu_s, began_s = time.process_time(), time.perf_counter()
    match what:
        case "cost":
            await caller.keep_in_flight(IN_FLIGHT, COST_S)
        case "burst":
            await caller.burst(BURST // GATEWAYS)
        case "kills":
            await caller.keep_in_flight(8, KILLS_S)
    answers = caller.answers
    answers.cpu_s, answers.seconds = time.process_time() - cpu_s, time.perf_counter() - began_s
    await asyncio.sleep(1)  # the last confirmations
    print(json.dumps(asdict(answers)))
    running.cancel()
    await bus.close()


async def run_gateways(url: str, what: str) -> list[Answers]:
    begin_s = time.time() + 3
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--gateway", f"{what}-{i}", "--url", url),
            *("--what", what, "--begin-s", str(begin_s)),
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        for i in range(GATEWAYS)
    ]
    printed = await asyncio.gather(*(process.communicate() for process in processes))
    return [Answers(**json.loads(out)) for out, _ in printed]


class Keepers:
    """Scheduler processes, of which one keeps the quotas."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> None:
        log = (self._folder / f"{name}.log").open("wb")
        self._processes[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace_scheduler", "--nats-url", self._url),
            *("--name", name, "--ports-file", str(self._folder / f"{name}.json")),
            stdout=log,
            stderr=log,
        )

    async def kill(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGKILL)
        await self._processes.pop(name).wait()

    async def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes.values()))

    def cpu_s(self) -> float:
        return sum(_cpu_s(process.pid) for process in self._processes.values())


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class Stage:
    """A broker, keepers and tables."""

    def __init__(self, server: NatsServer, keepers: Keepers, bus: Any) -> None:
        self.server, self.keepers, self.bus = server, keepers, bus

    def broker_cpu_s(self) -> float:
        return _cpu_s(self.server.pid)


@asynccontextmanager
async def stage(limits: Limits, *, keepers: int) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-quota-")))
        server = await stack.enter_async_context(nats_server(folder / "nats"))
        bus = await connect(server.url, name="judge")
        stack.push_async_callback(bus.close)
        await publish_tables(bus, limits)
        running = Keepers(server.url, folder)
        stack.push_async_callback(running.stop)
        for number in range(keepers):
            await running.start(f"keeper-{number}")
        await _first_keeper(bus)
        yield Stage(server, running, bus)


async def _first_keeper(bus: Any) -> None:
    async with asyncio.timeout(30):
        while not (await bus.read_journal()).last:
            await asyncio.sleep(0.1)


async def holder(bus: Any) -> str:
    """Return the name of the scheduler that keeps the quotas."""
    while True:
        with suppress(Exception):  # none does now, or the broker is away
            subject = "$KV.headrace_leases.quota-keeper"
            held = await bus.jetstream.get_last_msg("KV_headrace_leases", subject)
            if held.data:
                return str(held.data.decode().rpartition("-")[0])
        await asyncio.sleep(0.1)


async def measure_cost() -> dict[str, Any]:
    async with stage(ENDLESS, keepers=1) as found:
        keeper_s, broker_s = found.keepers.cpu_s(), found.broker_cpu_s()
        answers = await run_gateways(found.server.url, "cost")
        keeper_s, broker_s = found.keepers.cpu_s() - keeper_s, found.broker_cpu_s() - broker_s
    decisions = sum(len(each.granted) + each.refused for each in answers)
    gateway_s = sum(each.cpu_s for each in answers)
    return {
        "decisions_per_s": round(decisions / max(each.seconds for each in answers)),
        "cpu_us_per_decision": {
            "gateway": round(gateway_s / decisions * 1e6, 1),
            "broker": round(broker_s / decisions * 1e6, 1),
            "keeper": round(keeper_s / decisions * 1e6, 1),
        },
        "latency": asdict(_latency(answers)),
        "unavailable": sum(each.unavailable for each in answers),
    }


async def measure_burst() -> dict[str, Any]:
    async with stage(Limits(tokens_per_minute=BURST_LIMIT), keepers=1) as found:
        history = JournalHistory(found.bus)
        answers = await run_gateways(found.server.url, "burst")
        await history.catch_up()
    charged = Charged.of(history.entries)
    return {
        "reservations": BURST,
        "limit": BURST_LIMIT,
        "granted": sum(sum(each.granted.values()) for each in answers),
        "journal": charged.total,
        "fullest_minute": charged.fullest_minute()[1],
        "refused": sum(each.refused for each in answers),
        "unavailable": sum(each.unavailable for each in answers),
        "seconds": round(max(each.seconds for each in answers), 3),
        "latency": asdict(_latency(answers)),
    }


async def measure_kills() -> dict[str, Any]:
    limits = Limits(tokens_per_minute=KILLS_LIMIT, tokens_per_day=10**12)
    async with stage(limits, keepers=KEEPERS) as found:
        history = JournalHistory(found.bus)
        following = asyncio.create_task(history.follow())
        killing = asyncio.create_task(kill_all(found))
        answers = await run_gateways(found.server.url, "kills")
        await killing
        await history.catch_up()
        following.cancel()
    charged = Charged.of(history.entries)
    granted = {name: tokens for each in answers for name, tokens in each.granted.items()}
    return {
        "keepers_killed": KEEPERS,
        "brokers_killed": 1,
        "limit": KILLS_LIMIT,
        "granted": sum(granted.values()),
        "journal": charged.total,
        "equal_by_reservation": charged.tokens == granted,
        "fullest_minute": charged.fullest_minute()[1],
        "epochs": len(charged.epochs),
        "refused": sum(each.refused for each in answers),
        "unavailable": sum(each.unavailable for each in answers),
        "latency": asdict(_latency(answers)),
    }


async def kill_all(found: Stage) -> None:
    """Kill each keeper in turn, with another in its place, and the broker in between."""
    for number in range(KEEPERS):
        await asyncio.sleep(KILLS_S / (KEEPERS + 2))
        name = await holder(found.bus)
        await found.keepers.kill(name)
        await found.keepers.start(f"keeper-{KEEPERS + number}")
    await asyncio.sleep(KILLS_S / (KEEPERS + 2))
    await found.server.kill()
    await found.server.start()


def _latency(answers: Sequence[Answers]) -> Spread:
    return spread([each for one in answers for each in one.latencies_s])


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--gateway", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--what", help="one of cost, burst, kills; else all")
    parser.add_argument("--begin-s", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.gateway:
        asyncio.run(gateway(arguments.url, arguments.gateway, arguments.what, arguments.begin_s))
        return
    before = rig.facts()
    parts = {"cost": measure_cost, "burst": measure_burst, "kills": measure_kills}
    found: dict[str, list[dict[str, Any]]] = {}
    for what, measure in parts.items():
        if arguments.what in (None, what):
            rounds = 1 if what == "kills" else arguments.rounds
            found[what] = [asyncio.run(measure()) for _ in range(rounds)]
            for each in found[what]:
                print(what, json.dumps(each))
    rig.keep(arguments.json, before, found)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

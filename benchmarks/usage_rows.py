"""What a row of usage costs control: records of a stream become rows, sums and positions.

Each round stores records of ten tenants, forty keys and three models, with prices and budgets, as
the consumer does, with SQLite and with PostgreSQL. CPU is that of this
process: PostgreSQL's own is not part of it.

python benchmarks/usage_rows.py --json benchmarks/results/usage_rows.json
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import rig
from headrace.bus.usage import StoredUsage, UsagePosition
from headrace.internal.v1.usage_pb2 import UsageKind, UsageRecord, UsageRecords
from headrace_control.base.records import SYSTEM, Limits, Plan, Price, Tenant
from headrace_control.metering.usage_consumer import AT_ONCE
from headrace_control.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.postgres import postgres_server  # of the tests

ROWS = 20_000
START_MS = 1_790_000_000_000


@dataclass(frozen=True, slots=True)
class Stored:
    database: str
    records_a_message: int
    rows_a_second: float
    cpu_us_a_row: float


def messages(together: int) -> list[StoredUsage]:
    chance = random.Random(together)

    def record(sequence: int) -> UsageRecord:
        return UsageRecord(
            source=f"requests:{together}",
            sequence=sequence,
            request_id=f"req_{chance.getrandbits(100):x}",
            tenant=f"tenant-{chance.randrange(10)}",
            key_id=f"key-{chance.randrange(40)}",
            model=f"model-{chance.randrange(3)}",
            version=64 * "0",
            kind=UsageKind.USAGE_KIND_COMPLETIONS,
            input_tokens=chance.randrange(100, 4000),
            cached_input_tokens=chance.randrange(100),
            output_tokens=chance.randrange(1000),
            arrival_ms=START_MS,
            end_ms=START_MS + sequence,
            engine="headrace",
            n=1,
        )

    payloads = (
        UsageRecords(records=map(record, range(i, i + together))).SerializeToString()
        for i in range(0, ROWS, together)
    )
    return [
        StoredUsage(UsagePosition(str(together), position), payload)
        for position, payload in enumerate(payloads, start=1)
    ]


async def measure(url: str, name: str) -> list[Stored]:
    store = await Store.open(url, upgrade=True)
    plan = Plan("plan", limits=Limits(budget_nanos_per_month=10**15))
    await store.plans.create(plan, by=SYSTEM)
    for n in range(10):
        await store.tenants.create(Tenant(f"tenant-{n}", plan="plan"), by=SYSTEM)
    for n in range(3):
        await store.prices.create(Price(f"model-{n}", "USD", None, 150, 30, 600), by=SYSTEM)
    found = []
    for together in (1, 4, 16):
        stream = messages(together)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        for at in range(0, len(stream), AT_ONCE):
            await store.usage.record(stream[at : at + AT_ONCE])
        seconds = time.perf_counter() - began_s
        cpu_us = (time.process_time() - cpu_s) / ROWS * 1e6
        found.append(Stored(name, together, ROWS / seconds, cpu_us))
    await store.close()
    return found


async def measure_all(folder: Path) -> list[Stored]:
    found = await measure(f"sqlite:///{folder / 'usage.db'}", "sqlite")
    with postgres_server() as server:
        found += await measure(await server.new_database(), "postgresql")
    return found


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before, runs = rig.facts(), list[list[Stored]]()
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            runs.append(asyncio.run(measure_all(Path(folder))))
    rows = [
        (
            *(each[0].database, each[0].records_a_message),
            f"{rig.median([run.rows_a_second for run in each]):.0f}",
            f"{rig.median([run.cpu_us_a_row for run in each]):.0f} us",
        )
        for each in zip(*runs, strict=True)
    ]
    rig.show(("database", "records a message", "rows/s", "CPU a row"), rows)
    rig.keep(arguments.json, before, {"runs": [[asdict(r) for r in run] for run in runs]})


if __name__ == "__main__":
    main()

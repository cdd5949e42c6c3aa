r"""Ten thousand cancelled streams, and what they leave behind: it counts, it does not time.

PYTHONPATH=tests python benchmarks/cancelled_streams.py \
  --json benchmarks/results/cancelled_streams.json

They are cancelled by closing and by id, while they wait in their lane, in their prefill and in the
midst of their output, at a mesh of its own: one gateway, one scheduler, one worker of the scripted
engine with 16 slots. Counted before and after are tasks, file descriptors, slots, cache, what the
broker has of connections, subscriptions, consumers, requests and keys; and resident memory.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc

import rig
from headrace.supervisor.state.state_dir import MeshRecord
from helpers.held import held, resident_bytes, until_released
from helpers.leaving_clients import LeavingClients

AT_ONCE = 48
WARM_UP = 1000
"""What is allocated once, for so many at a time, is no leak."""
ROUNDS = 5
LET_GO_WITHIN_S = 60.0


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--streams", type=int, default=10_000)
    arguments = parser.parse_args()
    before = rig.facts()
    scripted = ("--engine", "scripted", "--scripted-step-ms", "2", "--set", "worker.max_slots=16")
    with rig.mesh(*scripted) as record:
        results = asyncio.run(_leave(record, arguments.streams))
    _show(results)
    rig.keep(arguments.json, before, results)
    if results["still_held"]:
        sys.exit(f"still held: {results['still_held']}")


async def _leave(record: MeshRecord, streams: int) -> dict[str, Any]:
    (gateway,) = (process for process in record.processes if process.role == "gateway")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        clients = LeavingClients(channel, record.models[0])
        nothing = await held(record)
        await clients.run(WARM_UP, at_once=AT_ONCE, seed=0)
        await until_released(record, nothing, within_s=LET_GO_WITHIN_S / 2)
        counts, memory = await held(record), [resident_bytes(record)]
        clients.left.clear()
        for number in range(1, ROUNDS + 1):
            await clients.run(streams // ROUNDS, at_once=AT_ONCE, seed=number)
            memory.append(resident_bytes(record))
        more = await until_released(record, counts, within_s=LET_GO_WITHIN_S)
        return {
            "streams": sum(clients.left.values()),
            "warm_up": WARM_UP,
            "at_once": AT_ONCE,
            "cancelled": dict(sorted(clients.left.items())),
            "held_before": counts,
            "held_after": await held(record),
            "still_held": more,
            "resident_bytes": memory,
        }


def _show(results: dict[str, Any]) -> None:
    rig.show(("cancelled", "streams"), list(results["cancelled"].items()))
    before, after = results["held_before"], results["held_after"]
    rig.show(("held", "before", "after"), [(name, before[name], after[name]) for name in before])
    rounds = results["resident_bytes"]
    heads = ("resident MiB", "before", *(f"{n}/{ROUNDS}" for n in range(1, ROUNDS + 1)))
    rig.show(heads, [(name, *(f"{r[name] / 2**20:.1f}" for r in rounds)) for name in rounds[0]])


if __name__ == "__main__":
    main()

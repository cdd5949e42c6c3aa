"""Bodies that nobody should send, by tens of thousands, over every path that answers by itself:
responses, conversations, messages, classes, moderations, ranks, tokens, files, batches.

PYTHONPATH=tests python benchmarks/fuzzing_paths.py --json benchmarks/results/fuzzing_paths.json

A whole mesh with a model that makes text, one that makes vectors and one that classifies, through
Envoy. Every answer must be 2xx or 4xx, and an error of the shape of its path; a good request after
each hundred must be answered; no process may be another one at the end; memory must stay. Every
body has a number, and the same number makes the same body.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

import rig
from headrace.supervisor.state.state_dir import MeshRecord, StateDir
from helpers.fuzzed_mesh import PATHS, Heard, fuzz, numbered, stored_names
from helpers.tiny_encoders import save_encoder, tiny_encoder

PORTION = 1000
MOST_GROWTH = 1.5
"""Memory at the end, of that after the first portions."""


def main() -> int:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--first", type=int, default=0, help="number of the first body")
    parser.add_argument("--count", type=int, default=20_000, help="how many bodies")
    chosen = parser.parse_args()
    before = rig.facts()
    with tempfile.TemporaryDirectory() as folder:
        sense = save_encoder(Path(folder) / "sense", tiny_encoder())
        sorts = save_encoder(Path(folder) / "sorts", tiny_encoder(labels=("toxic", "neutral")))
        models = ("default", f"{sense}=sense", f"{sorts}=sorts")
        options = [each for model in models for each in ("--model", model)]
        with rig.mesh_in_folder(*options, "--set", "worker.context_tokens=256") as state:
            found = asyncio.run(measured(StateDir(state), chosen.first, chosen.count))
    print({name: value for name, value in found.items() if name != "faults"})
    rig.keep(chosen.json, before, found)
    return int(bool(found["faults"] or found["restarted"]) or found["growth"] > MOST_GROWTH)


async def measured(state: StateDir, first: int, count: int) -> dict[str, Any]:
    record = state.read_record()
    assert record.url is not None, "the mesh is up"
    began_s, heard, memory = time.monotonic(), Heard(), list[int]()
    async with httpx.AsyncClient(base_url=record.url, trust_env=False, timeout=180) as http:
        names = await stored_names(http)
        for begin, portion in numbered(first, count, PORTION):
            part = await fuzz(http, names, begin, portion)
            heard.answers += part.answers
            heard.faults += part.faults
            heard.good += part.good
            memory.append(megabytes(record))
            # Also what is wrong: a run that is cut short has shown it all.
            for fault in part.faults:
                print("   ", fault[:500], flush=True)
            print(f"{begin + portion}: {dict(part.answers)}, {memory[-1]} MB", flush=True)
    pids = {process.name: process.pid for process in record.processes}
    after = {process.name: process.pid for process in state.read_record().processes}
    return {
        "paths": list(PATHS),
        "first": first,
        "sent": count,
        "seconds": round(time.monotonic() - began_s, 1),
        "answers": dict(sorted(heard.answers.items())),
        "good_answered": heard.good,
        "faults": heard.faults,
        "restarted": sorted(name for name in pids if pids[name] != after.get(name)),
        "megabytes": memory,
        "growth": round(memory[-1] / memory[min(1, len(memory) - 1)], 2),
    }


def megabytes(record: MeshRecord) -> int:
    """Return the memory of all processes of the mesh."""
    resident = Counter[str]()
    for process in record.processes:
        if process.pid is not None and psutil.pid_exists(process.pid):
            resident[process.name] = psutil.Process(process.pid).memory_info().rss
    return resident.total() // 2**20


if __name__ == "__main__":
    sys.exit(main())

"""What keys and encryption cost: CPU of all processes of a mesh for each request.

Three meshes of the scripted engine stand side by side and are loaded in turns, so that what
disturbs the machine disturbs all of them: without keys, with keys, and with keys over TLS 1.3 to
Envoy and mutual TLS between all processes. Each request is a chat of a few tokens over a kept-alive
connection.

python benchmarks/access_cost.py --rounds 7 --json benchmarks/results/access_cost.json
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

import rig
from headrace.bench.cpu import cpu_seconds, difference
from headrace.supervisor.state.state_dir import StateDir

REQUESTS = 400
IN_FLIGHT = 16
MODES = {
    "no keys": (),
    "keys": ("--auth", "keys"),
    "keys, TLS and mutual TLS": ("--auth", "keys", "--tls"),
}


@dataclass(frozen=True, slots=True)
class Cost:
    mode: str
    cpu_ms_per_request: float
    """Of all processes of the mesh, with what they do anyway."""
    by_process: dict[str, float]
    wall_s: float


async def load(folder: Path, mode: str) -> None:
    """Send the requests of one turn.

    Raises:
        SystemExit: a request failed; its cost would flatter.
    """
    url = StateDir(folder).read_record().url or ""
    headers = {}
    if mode != "no keys":
        headers["authorization"] = f"Bearer {(folder / 'cli.key').read_text().strip()}"
    ca_file = folder / "tls" / "ca.crt"
    verify = ssl.create_default_context(cafile=str(ca_file)) if ca_file.exists() else False
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "Say something short."}],
        "max_tokens": 4,
    }
    left = iter(range(REQUESTS))

    async def client(http: httpx.AsyncClient) -> None:
        for _ in left:
            answer = await http.post("/v1/chat/completions", json=body, headers=headers)
            if answer.status_code != 200:
                sys.exit(f"{mode}: {answer.status_code} {answer.text}")

    limits = httpx.Limits(max_connections=IN_FLIGHT)
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, timeout=60, verify=verify, limits=limits
    ) as http:
        await asyncio.gather(*(client(http) for _ in range(IN_FLIGHT)))


def measure(folder: Path, mode: str) -> Cost:
    record = StateDir(folder).read_record()
    before, began_s = cpu_seconds(record), time.perf_counter()
    asyncio.run(load(folder, mode))
    used = difference(before, cpu_seconds(record))
    by_process = {name: round(s / REQUESTS * 1000, 3) for name, s in used.items()}
    wall_s = round(time.perf_counter() - began_s, 2)
    return Cost(mode, round(sum(used.values()) / REQUESTS * 1000, 3), by_process, wall_s)


@contextlib.contextmanager
def meshes() -> Iterator[dict[str, Path]]:
    with contextlib.ExitStack() as stack:
        yield {
            mode: stack.enter_context(rig.mesh_in_folder("--engine", "scripted", *up))
            for mode, up in MODES.items()
        }


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    with meshes() as folders:
        for mode, folder in folders.items():
            measure(folder, mode)
        runs = [
            measure(folder, mode)
            for _ in range(arguments.rounds)
            for mode, folder in folders.items()
        ]
    by_mode = {mode: [r for r in runs if r.mode == mode] for mode in MODES}
    base = [run.cpu_ms_per_request for run in by_mode["no keys"]]
    rows, ratios = [], {}
    for mode, its in by_mode.items():
        costs = [run.cpu_ms_per_request for run in its]
        # Of the same turn, which the machine disturbed alike.
        ratios[mode] = round(rig.median([c / b for c, b in zip(costs, base, strict=True)]), 3)
        rows.append((mode, f"{rig.median(costs):.2f} ms", f"{ratios[mode]:.2f}"))
    rig.show(("mesh", "CPU each request", "ratio"), rows)
    results = {
        "requests": REQUESTS,
        "in_flight": IN_FLIGHT,
        "median_ratio_of_turns": ratios,
        "runs": [asdict(r) for r in runs],
    }
    rig.keep(arguments.json, before, results)


if __name__ == "__main__":
    main()

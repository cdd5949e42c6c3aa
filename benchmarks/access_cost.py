"""What keys and encryption cost: CPU of all processes of a mesh for each request.

Three meshes of the scripted engine stand side by side and are loaded in turns, so that what
disturbs the machine disturbs all of them: without keys, with keys, and with keys over TLS 1.3 to
Envoy and mutual TLS between all processes. Each request is a chat of a few tokens over a kept-alive
connection.

python benchmarks/access_cost.py --rounds 7 --json benchmarks/results/access_cost.json
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import rig
from chats import IN_FLIGHT, Cost, cost_of_chats

REQUESTS = 400
MODES = {
    "no keys": (),
    "keys": ("--auth", "keys"),
    "keys, TLS and mutual TLS": ("--auth", "keys", "--tls"),
}


def measure(folder: Path, mode: str) -> Cost:
    key = "" if mode == "no keys" else (folder / "cli.key").read_text().strip()
    return cost_of_chats(folder, mode, REQUESTS, key=key)


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

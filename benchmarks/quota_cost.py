"""What accounts cost: CPU of all processes of a mesh for each request, with keys.

Meshes of the scripted engine stand side by side and are loaded in turns, so that what disturbs the
machine disturbs all of them:

    keys      of a checkout from before there were accounts, with --before
    usage     every request is a row, and no limit applies
    limits    the tenant and its key have limits of every kind, a budget and a price

Each request is a chat of four tokens over a kept-alive connection: the less a request computes, the
more of it is its account.

git worktree add --detach ../before 4d127793      # and install it there, with `make setup`
python benchmarks/quota_cost.py --rounds 15 --before ../before/.venv/bin/python \
    --json benchmarks/results/quota_cost.json
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import rig
from chats import IN_FLIGHT, Cost, cost_of_chats

REQUESTS = 200
UP = ("--engine", "scripted", "--auth", "keys")
MUCH = "1000000000"
LIMITS = (
    *("--requests-per-minute", MUCH, "--tokens-per-minute", MUCH),
    *("--requests-per-day", MUCH, "--tokens-per-day", MUCH),
    *("--concurrent-requests", MUCH, "--budget-per-month", "1000000"),
)


@dataclass(frozen=True, slots=True)
class Mesh:
    folder: Path
    key: str


@contextlib.contextmanager
def meshes(before: str | None) -> Iterator[dict[str, Mesh]]:
    pythons = {"keys": before, "usage": sys.executable, "limits": sys.executable}
    with contextlib.ExitStack() as stack:
        yield {
            mode: begin(stack.enter_context(rig.mesh_in_folder(*UP, python=python)), mode, python)
            for mode, python in pythons.items()
            if python is not None
        }


def begin(folder: Path, mode: str, python: str) -> Mesh:
    """Make a tenant with a key, and in the mode `limits` with limits."""
    state = ("--state-dir", str(folder))
    if mode == "limits":
        rig.headrace("price", "set", "scripted", "--input", "0.15", "--output", "0.6", *state)
        rig.headrace("plan", "create", "wide", *LIMITS, *state)
        rig.headrace("tenant", "create", "acme", "--plan", "wide", *state)
    limits = LIMITS if mode == "limits" else ()
    of = ("--tenant", "acme", "--json", *limits, *state)
    return Mesh(folder, json.loads(rig.headrace("key", "create", *of, python=python))["key"])


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--before", metavar="PYTHON", help="of a checkout without accounts")
    arguments = parser.parse_args()
    before = rig.facts()
    with meshes(arguments.before) as found:

        def measure(mode: str) -> Cost:
            return cost_of_chats(found[mode].folder, mode, REQUESTS, key=found[mode].key)

        modes = list(found)
        for mode in modes:
            measure(mode)
        # In both orders, so that none is always after the same one.
        turns = [modes if turn % 2 else modes[::-1] for turn in range(arguments.rounds)]
        runs = [measure(mode) for turn in turns for mode in turn]
    by_mode = {mode: [run for run in runs if run.mode == mode] for mode in modes}
    ratios = {mode: ratio(of, by_mode[modes[0]]) for mode, of in by_mode.items()}
    processes = list(by_mode["limits"][0].by_process)
    rig.show(
        ("mesh", "CPU each request", "ratio", *processes),
        [
            (mode, f"{cpu_ms(of):.2f} ms", ratios[mode], *(process_ms(p, of) for p in processes))
            for mode, of in by_mode.items()
        ],
    )
    results = {
        "requests": REQUESTS,
        "in_flight": IN_FLIGHT,
        "median_ratio_of_turns": ratios,
        "runs": [asdict(run) for run in runs],
    }
    rig.keep(arguments.json, before, results)


def cpu_ms(runs: list[Cost]) -> float:
    return rig.median([run.cpu_ms_per_request for run in runs])


def process_ms(process: str, runs: list[Cost]) -> str:
    return f"{rig.median([run.by_process.get(process, 0.0) for run in runs]):.2f}"


def ratio(runs: list[Cost], base: list[Cost]) -> float:
    """Of the same turns, which the machine disturbed alike."""
    costs = zip(runs, base, strict=True)
    return round(rig.median([run.cpu_ms_per_request / b.cpu_ms_per_request for run, b in costs]), 3)


if __name__ == "__main__":
    main()

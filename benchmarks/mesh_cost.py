"""What a token costs in the mesh: the scripted engine at 20 ms a step, no arithmetic.

python benchmarks/mesh_cost.py --json benchmarks/results/mesh_cost.json
"""

from __future__ import annotations

from dataclasses import asdict

import rig
from headrace.bench.figures import Figures

STREAMS = (64, 256)
MAX_TOKENS = 256
STEP_MS = 20
ROLES = ("envoy", "gateway", "nats", "scheduler", "worker")


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs: list[Figures] = []
    scripted = ("--engine", "scripted", "--scripted-step-ms", str(STEP_MS))
    with rig.mesh(*scripted, "--set", f"worker.max_slots={max(STREAMS) + 64}") as record:
        load = rig.load_on(record, max_tokens=MAX_TOKENS)
        rig.measure(load, record, concurrency=64, requests=64)
        for _ in range(arguments.rounds):
            runs += [rig.measure(load, record, concurrency=n, requests=2 * n) for n in STREAMS]
    rig.show(
        ("streams", "tokens/s", "tokens/CPU s", "gap p50 / p99", *(f"{r} us" for r in ROLES)),
        [_row(n, [run for run in runs if run.concurrency == n]) for n in STREAMS],
    )
    results = {"step_ms": STEP_MS, "load": asdict(load), "runs": [asdict(r) for r in runs]}
    rig.keep(arguments.json, before, results)


def _row(streams: int, runs: list[Figures]) -> tuple[str, ...]:
    p50_ms, p99_ms = (
        rig.median([run.inter_token.p50_ms for run in runs]),
        rig.median([run.inter_token.p99_ms for run in runs]),
    )
    return (
        str(streams),
        f"{rig.median([run.output_tokens_per_s for run in runs]):.0f}",
        f"{rig.median([run.output_tokens_per_cpu_s for run in runs]):.0f}",
        f"{p50_ms:.0f} / {p99_ms:.0f} ms",
        *(f"{rig.median([_us_per_token(role, run) for run in runs]):.1f}" for role in ROLES),
    )


def _us_per_token(role: str, run: Figures) -> float:
    """Of all processes of a role, admission of the requests included."""
    used_s = sum(used for name, used in run.cpu_s.items() if name.startswith(role))
    return used_s / run.output_tokens * 1e6


if __name__ == "__main__":
    main()

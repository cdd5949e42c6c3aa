"""What batching is worth: output tokens/s of the default model, 32 requests in flight and 1.

python benchmarks/batching.py --json benchmarks/results/batching.json
"""

from __future__ import annotations

from dataclasses import asdict

import rig
from headrace.bench.figures import Figures

IN_FLIGHT = (1, 8, 32)
MAX_TOKENS = 64


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs: list[Figures] = []
    with rig.mesh("--threads", "1") as record:
        load = rig.load_on(record, max_tokens=MAX_TOKENS)
        rig.measure(load, record, concurrency=8, requests=8)
        for _ in range(arguments.rounds):
            runs += [
                rig.measure(load, record, concurrency=n, requests=max(24, 3 * n)) for n in IN_FLIGHT
            ]
    rates = {n: rig.median([r.output_tokens_per_s for r in _at(n, runs)]) for n in IN_FLIGHT}
    rows = [
        (
            n,
            f"{rates[n]:.0f}",
            f"{rates[n] / rates[1]:.1f}x",
            f"{rig.median([r.inter_token.p50_ms for r in _at(n, runs)]):.1f} ms",
            f"{rig.median([r.output_tokens_per_cpu_s for r in _at(n, runs)]):.0f}",
        )
        for n in IN_FLIGHT
    ]
    rig.show(("in flight", "tokens/s", "of 1", "gap p50", "tokens/CPU s"), rows)
    results = {"model": load.model, "load": asdict(load), "runs": [asdict(r) for r in runs]}
    rig.keep(arguments.json, before, results)


def _at(in_flight: int, runs: list[Figures]) -> list[Figures]:
    return [run for run in runs if run.concurrency == in_flight]


if __name__ == "__main__":
    main()

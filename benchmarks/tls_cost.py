"""What encryption costs: two meshes of the scripted engine, one plain, one with --tls, in turns.

With --tls clients speak TLS 1.3 to Envoy, and every line inside has certificates at both ends.

python benchmarks/tls_cost.py --json benchmarks/results/tls_cost.json
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import rig
from headrace.bench.figures import Figures
from headrace.rpc.identity import PUBLIC, server_name
from headrace.rpc.tls import Trust
from headrace.supervisor.state.state_dir import StateDir

ROLES = ("envoy", "gateway", "nats", "scheduler", "worker")
SCRIPTED = ("--engine", "scripted", "--scripted-step-ms", "5", "--set", "worker.max_slots=320")
# Name, tokens of an answer, requests at a time, requests.
SHAPES = (
    ("short answers, connections kept", 8, 16, 640),
    ("short answers, a connection each", 8, 200, 200),
    ("long streams", 256, 64, 128),
)


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs: dict[str, list[Figures]] = {}
    with rig.mesh_in_folder(*SCRIPTED) as plain, rig.mesh_in_folder(*SCRIPTED, "--tls") as tls:
        meshes = {"plain": plain, "TLS": tls}
        for folder in meshes.values():
            _run(folder, 8, 16, 160)
        for _ in range(arguments.rounds):
            for shape, *load in SHAPES:
                for kind, folder in meshes.items():
                    runs.setdefault(f"{shape}: {kind}", []).append(_run(folder, *load))
    rows = [_row(shape, runs) for shape, *_ in SHAPES]
    rig.show(("load", "CPU plain", "CPU TLS", "ratio", *ROLES), rows)
    found = {name: [asdict(run) for run in each] for name, each in runs.items()}
    rig.keep(arguments.json, before, {"shapes": SHAPES, "runs": found})


def _run(folder: Path, max_tokens: int, concurrency: int, requests: int) -> Figures:
    record = StateDir(folder).read_record()
    load = rig.load_on(record, max_tokens=max_tokens)
    trust = Trust(ca_file=folder / "tls" / "ca.crt", server_name=server_name(PUBLIC))
    return rig.measure(load, record, concurrency=concurrency, requests=requests, trust=trust)


def _row(shape: str, runs: dict[str, list[Figures]]) -> tuple[str, ...]:
    plain, tls = (runs[f"{shape}: {kind}"] for kind in ("plain", "TLS"))
    before, after = (rig.median([_ms(run) for run in each]) for each in (plain, tls))
    by_role = (
        f"{rig.median([_ms(run, role) for run in plain]):.2f} / "
        f"{rig.median([_ms(run, role) for run in tls]):.2f}"
        for role in ROLES
    )
    return (shape, f"{before:.2f} ms", f"{after:.2f} ms", f"{after / before:.2f}", *by_role)


def _ms(run: Figures, role: str = "") -> float:
    """CPU time of a request, in all processes of a role, or of the mesh."""
    used_s = sum(used for name, used in run.cpu_s.items() if name.startswith(role))
    return used_s / run.requests * 1e3


if __name__ == "__main__":
    main()

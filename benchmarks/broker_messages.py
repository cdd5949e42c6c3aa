"""That the broker carries requests and not tokens: its messages for short and long answers.

The broker counts its messages itself. What an idle mesh says in the same time, heartbeats and
reports, is taken off.

python benchmarks/broker_messages.py --json benchmarks/results/broker_messages.json
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import httpx

import rig
from headrace.supervisor.state.state_dir import MeshRecord

LENGTHS = (16, 512)
REQUESTS = 64
IN_FLIGHT = 8
IDLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Traffic:
    max_tokens: int
    seconds: float
    messages_in: int
    messages_out: int
    idle_per_s: float
    """Messages in and out of the idle mesh, just before."""

    @property
    def per_request(self) -> float:
        """In and out, without what an idle mesh says."""
        said = self.messages_in + self.messages_out - self.idle_per_s * self.seconds
        return said / REQUESTS


def counted(record: MeshRecord) -> tuple[int, int]:
    """Messages into and out of the broker since it started."""
    port = next(each.ports["http"] for each in record.processes if each.role == "nats")
    found = httpx.get(f"http://127.0.0.1:{port}/varz", trust_env=False).json()
    return found["in_msgs"], found["out_msgs"]


def measure(record: MeshRecord, max_tokens: int) -> Traffic:
    idle = counted(record)
    time.sleep(IDLE_S)
    before, began_s = counted(record), time.perf_counter()
    load = rig.load_on(record, max_tokens=max_tokens)
    rig.measure(load, record, concurrency=IN_FLIGHT, requests=REQUESTS)
    after, seconds = counted(record), time.perf_counter() - began_s
    return Traffic(
        max_tokens,
        round(seconds, 3),
        after[0] - before[0],
        after[1] - before[1],
        round((sum(before) - sum(idle)) / IDLE_S, 2),
    )


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs: list[Traffic] = []
    with rig.mesh("--engine", "scripted", "--scripted-step-ms", "1") as record:
        measure(record, LENGTHS[0])
        for _ in range(arguments.rounds):
            runs += [measure(record, length) for length in LENGTHS]
    each = {
        length: rig.median([r.per_request for r in runs if r.max_tokens == length])
        for length in LENGTHS
    }
    rig.show(
        ("tokens of each answer", "broker messages of each request"),
        [(length, f"{each[length]:.1f}") for length in LENGTHS],
    )
    more = (each[LENGTHS[1]] - each[LENGTHS[0]]) / (LENGTHS[1] - LENGTHS[0])
    print(f"{more:.4f} messages for each further token")
    results = {"requests": REQUESTS, "in_flight": IN_FLIGHT, "runs": [asdict(r) for r in runs]}
    rig.keep(arguments.json, before, results)


if __name__ == "__main__":
    main()

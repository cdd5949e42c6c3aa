"""Headrace beside a server made of the same libraries: `transformers serve`, batching as well.

Both serve the same weights on this machine at the same time, with one thread for arithmetic
each, and get the same requests in turns, one server at a time; so a slow minute falls on both.
All processes of the mesh are counted.

python tests/bench/beside_transformers.py --rival-venv ~/.cache/headrace-bench/transformers \\
    --json tests/bench/results/beside_transformers.json
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import random_llama
import rig
from headrace.bench.cpu import cpu_seconds
from headrace.bench.figures import Figures, figures
from headrace.bench.load import Load, run
from headrace_worker.models import DEFAULT_MODEL
from rival import Rival, installed, serving

MAX_TOKENS, PROMPT_WORDS = 48, 64
IDLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    load: Load
    cpu_s: Callable[[], float]
    """Of all its processes, since they started."""


@dataclass(frozen=True, slots=True)
class Turn:
    weights: str
    contender: str
    round: int
    figures: Figures


def one_turn(contender: Contender, in_flight: int, requests: int) -> Figures:
    before_s, own_before_s = contender.cpu_s(), time.process_time()
    outcomes = asyncio.run(run(contender.load, concurrency=in_flight, requests=requests))
    found = figures(
        outcomes,
        concurrency=in_flight,
        cpu_s={contender.name: contender.cpu_s() - before_s},
        client_cpu_s=time.process_time() - own_before_s,
    )
    if found.errors:
        sys.exit(f"{contender.name}: {found.errors} requests failed: {found.error_examples}")
    return found


def idle_cores(contender: Contender) -> float:
    """What it takes for doing nothing."""
    before_s = contender.cpu_s()
    time.sleep(IDLE_S)
    return round((contender.cpu_s() - before_s) / IDLE_S, 3)


def _contenders(url: str, model: str, ours: Callable[[], float], rival: Rival) -> list[Contender]:
    shape = {"max_tokens": MAX_TOKENS, "prompt_words": PROMPT_WORDS}
    return [
        Contender("headrace", Load(url, model, **shape), ours),  # type: ignore[arg-type]
        Contender(
            "transformers",
            Load(rival.url, rival.model, done_mark=False, **shape),  # type: ignore[arg-type]
            rival.cpu_s,
        ),
    ]


def side_by_side(
    weights: Path, name: str, rival_program: Path, in_flight: Sequence[int], rounds: int
) -> tuple[list[Turn], dict[str, float]]:
    """Every turn, and what each takes while it is idle, in cores."""
    turns: list[Turn] = []
    with (
        tempfile.NamedTemporaryFile(prefix="transformers-serve-", suffix=".log") as log,
        serving(rival_program, weights, Path(log.name)) as rival,
        rig.mesh("--model", f"{weights}={name}", "--threads", "1") as record,
    ):
        assert record.url is not None, "the mesh is up"
        both = _contenders(record.url, name, lambda: sum(cpu_seconds(record).values()), rival)
        for contender in both:
            one_turn(contender, 8, 8)
        idle = {contender.name: idle_cores(contender) for contender in both}
        for number in range(rounds):
            for place, flights in enumerate(in_flight):
                # Either goes first as often as the other.
                for contender in both if (number + place) % 2 else reversed(both):
                    found = one_turn(contender, flights, max(32, 2 * flights))
                    turns.append(Turn(name, contender.name, number, found))
                    print(f"{name} {contender.name} {flights}: {found.output_tokens_per_s:.0f}/s")
    return turns, idle


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--rival-venv", type=Path, required=True, help="made if it is not there")
    parser.add_argument("--in-flight", default="8,32,64", help="numbers with commas between")
    arguments = parser.parse_args()
    in_flight = [int(each) for each in arguments.in_flight.split(",")]
    program = installed(arguments.rival_venv.expanduser().absolute())
    before = rig.facts()
    turns: list[Turn] = []
    idle: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        llama = Path(folder) / "random-llama"
        random_llama.make(llama)
        for weights, name in ((llama, "random-llama"), (DEFAULT_MODEL, "valley")):
            its, idle[name] = side_by_side(weights, name, program, in_flight, arguments.rounds)
            turns += its
    rig.show(
        ("weights", "in flight", "", "tokens/s", "ratio", "TTFT p50", "tokens/CPU s", "ratio"),
        [_row(turns, name, n, who) for name in idle for n in in_flight for who in _NAMES],
    )
    results = {"idle_cores": idle, "turns": [asdict(turn) for turn in turns]}
    rig.keep(arguments.json, before, results)


_NAMES = ("headrace", "transformers")


def _row(turns: list[Turn], weights: str, in_flight: int, who: str) -> tuple[str, ...]:
    def median(name: str, of: Callable[[Figures], float | None]) -> float:
        return rig.median(
            [
                of(turn.figures)
                for turn in turns
                if (turn.weights, turn.contender, turn.figures.concurrency)
                == (weights, name, in_flight)
            ]
        )

    def rate(found: Figures) -> float:
        return found.output_tokens_per_s

    def thrift(found: Figures) -> float | None:
        return found.output_tokens_per_cpu_s

    return (
        *(weights, str(in_flight), who, f"{median(who, rate):.0f}"),
        f"{median(who, rate) / median(_NAMES[1], rate):.2f}x",
        f"{median(who, lambda found: found.ttft.p50_ms):.0f} ms",
        f"{median(who, thrift):.0f}",
        f"{median(who, thrift) / median(_NAMES[1], thrift):.2f}x",
    )


if __name__ == "__main__":
    main()

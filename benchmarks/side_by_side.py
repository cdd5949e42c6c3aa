"""Headrace, its engine alone, and other servers, on the same weights in one run.

All of them are up at the same time, with as many threads of arithmetic each (one, unless told),
and get the same requests in turns, one at a time; so a slow minute falls on all. Every process of
each is counted.

python benchmarks/side_by_side.py --venvs ~/.cache/headrace-bench \\
    --json benchmarks/results/side_by_side.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import random_llama
import rig
import rivals
from contenders import Alone, Contender, Served
from headrace.bench.cpu import cpu_seconds
from headrace.bench.figures import Figures
from headrace.bench.load import Load
from headrace_worker.serving.models import DEFAULT_MODEL

MAX_TOKENS, PROMPT_WORDS = 48, 64
IDLE_S = 3.0
WEIGHTS = (*random_llama.SHAPES, "valley")


@dataclass(frozen=True, slots=True)
class Turn:
    weights: str
    contender: str
    round: int
    figures: Figures


def idle_cores(contender: Contender) -> float:
    """What it takes for doing nothing."""
    before_s = contender.cpu_s()
    time.sleep(IDLE_S)
    return round((contender.cpu_s() - before_s) / IDLE_S, 3)


def contenders(
    stack: ExitStack, weights: Path, name: str, venvs: dict[str, Path], threads: int
) -> list[Contender]:
    """Started, all of them; they end with the stack."""
    logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
    shape = {"max_tokens": MAX_TOKENS, "prompt_words": PROMPT_WORDS}
    record = stack.enter_context(
        rig.mesh("--model", f"{weights}={name}", "--threads", str(threads))
    )
    assert record.url is not None, "the mesh is up"
    found: list[Contender] = [
        Served(
            "headrace",
            Load(record.url, name, **shape),  # type: ignore[arg-type]
            (record.supervisor_pid,),
            lambda: sum(cpu_seconds(record).values()),
        ),
        stack.enter_context(Alone(weights, PROMPT_WORDS, MAX_TOKENS, threads=threads)),
    ]
    for kind, venv in venvs.items():
        rival = stack.enter_context(
            rivals.serving(rivals.KINDS[kind], venv, weights, logs / f"{kind}.log", threads=threads)
        )
        done_mark = rival.kind.done_mark
        load = Load(rival.url, rival.model, done_mark=done_mark, **shape)  # type: ignore[arg-type]
        found.append(Served(kind, load, (rival.pid,)))
    return found


def side_by_side(
    weights: Path, name: str, venvs: dict[str, Path], arguments: argparse.Namespace
) -> tuple[list[Turn], dict[str, dict[str, float]]]:
    """Every turn; and of each contender what it takes while idle, and its memory at its most."""
    turns: list[Turn] = []
    with ExitStack() as stack:
        all_of_them = contenders(stack, weights, name, venvs, arguments.threads)
        for contender in all_of_them:
            contender.turn(8, 8)
        facts = {c.name: {"idle_cores": idle_cores(c)} for c in all_of_them}
        for number in range(arguments.rounds):
            for place, flights in enumerate(arguments.in_flight):
                # Each goes first as often as any other.
                first = (number + place) % len(all_of_them)
                for contender in all_of_them[first:] + all_of_them[:first]:
                    found = contender.turn(flights, max(8, arguments.waves * flights))
                    turns.append(Turn(name, contender.name, number, found))
                    print(f"{name} {contender.name} {flights}: {found.output_tokens_per_s:.0f}/s")
        for contender in all_of_them:
            facts[contender.name]["peak_mib"] = contender.peak_mib()
    return turns, facts


def main() -> None:
    arguments = _arguments()
    in_flight: list[int] = arguments.in_flight
    folder = arguments.venvs.expanduser().absolute()
    venvs = {
        name: rivals.installed(rivals.KINDS[name], folder) for name in arguments.rivals.split(",")
    }
    before = rig.facts()
    turns: list[Turn] = []
    facts: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as made:
        for name in arguments.weights.split(","):
            weights = DEFAULT_MODEL if name == "valley" else Path(made) / name
            kinds = dict(venvs)
            if name == "valley":
                kinds.pop("llama.cpp", None)  # its tokenizer is none that llama.cpp knows
            else:
                random_llama.make(weights, name)
            its, facts[name] = side_by_side(weights, name, kinds, arguments)
            turns += its
            print(f"\n{name}\n")
            rig.show(_HEADS, [_row(turns, name, n, who) for n in in_flight for who in facts[name]])
            rig.show(
                ("", "idle cores", "peak MiB"),
                [(who, f["idle_cores"], f["peak_mib"]) for who, f in facts[name].items()],
            )
            # Each time, for the next weights may take hours.
            results = {
                "threads": arguments.threads,
                "facts": facts,
                "turns": [asdict(turn) for turn in turns],
            }
            rig.keep(arguments.json, before, results)


def _arguments() -> argparse.Namespace:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--venvs", type=Path, required=True, help="of the others; made if absent")
    parser.add_argument(
        "--in-flight",
        type=lambda text: [int(each) for each in text.split(",")],
        default=[1, 8, 32, 64],
        help="numbers with commas between",
    )
    parser.add_argument("--waves", type=int, default=2, help="requests for each place in flight")
    parser.add_argument("--weights", default=",".join(WEIGHTS), help="some of the default")
    parser.add_argument("--threads", type=int, default=1, help="of arithmetic, of each; (1)")
    parser.add_argument("--rivals", default=",".join(rivals.KINDS), help="some of the default")
    arguments = parser.parse_args()
    for given, known in ((arguments.weights, WEIGHTS), (arguments.rivals, rivals.KINDS)):
        if unknown := set(given.split(",")) - set(known):
            sys.exit(f"{', '.join(unknown)}: none of {', '.join(known)}")
    return arguments


_HEADS = (
    *("in flight", "", "tokens/s", "of ours", "tokens/CPU s", "of ours"),
    *("TTFT p50 / p99", "gap p50 / p99"),
)


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

    ttft = [median(who, lambda f: f.ttft.p50_ms), median(who, lambda f: f.ttft.p99_ms)]
    gap = [median(who, lambda f: f.inter_token.p50_ms), median(who, lambda f: f.inter_token.p99_ms)]
    return (
        *(str(in_flight), who, f"{median(who, rate):.0f}"),
        f"{median(who, rate) / median('headrace', rate):.2f}x",
        f"{median(who, thrift):.0f}",
        f"{median(who, thrift) / median('headrace', thrift):.2f}x",
        f"{ttft[0]:.0f} / {ttft[1]:.0f} ms",
        f"{gap[0]:.0f} / {gap[1]:.0f} ms",
    )


if __name__ == "__main__":
    main()

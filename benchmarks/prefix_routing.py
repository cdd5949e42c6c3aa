"""What prefix-aware routing gains: conversations of several turns over two workers, on and off.

Through the public door. Each conversation has instructions of its own; every turn sends all that
was said before, as chat clients do. Hits are tokens of prompts that the workers' caches had, by
their own count; the first turns have nothing to hit. The model's weights are random: time does not
depend on what they say.

python benchmarks/prefix_routing.py --json benchmarks/results/prefix_routing.json
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import random_llama
import rig
from headrace.bench.http1 import Connection
from headrace.supervisor.state.state_dir import MeshRecord

WORKERS, CONVERSATIONS, AT_ONCE, TURNS = 2, 12, 4, 5
INSTRUCTION_WORDS, QUESTION_WORDS, ANSWER_TOKENS = 500, 30, 24
_WORDS = "the of to and in is for that with as on be are not from this by or if it all we you"
_FIGURE = re.compile(r"^([a-z:_]+)\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
ROUTED = "headrace_scheduler_prefix_routed_requests_total"


@dataclass(frozen=True, slots=True)
class Turn:
    conversation: int
    turn: int
    prompt_tokens: int
    first_s: float
    """From sending the request to its first text."""


@dataclass(frozen=True, slots=True)
class Run:
    routing: bool
    round: int
    asked_tokens: int
    """Of prompts, by the workers' caches."""
    hit_tokens: int
    routed_requests: int
    turns: list[Turn]


async def converse(record: MeshRecord, numbers: Iterator[int], round: int) -> list[Turn]:
    """Conversations one after another, each with its turns one after another."""
    assert record.url is not None, "the mesh is up"
    connection = Connection(record.url)
    turns = []
    for number in numbers:
        draw = random.Random(f"{round} {number}")
        messages = [{"role": "system", "content": _say(draw, INSTRUCTION_WORDS)}]
        for turn in range(1, TURNS + 1):
            messages.append({"role": "user", "content": _say(draw, QUESTION_WORDS)})
            began_s = time.perf_counter()
            text, first_s, prompt_tokens = await _ask(connection, record.models[0], messages)
            turns.append(Turn(number, turn, prompt_tokens, first_s - began_s))
            messages.append({"role": "assistant", "content": text})
    await connection.close()
    return turns


def _say(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(_WORDS.split(), k=words))


async def _ask(
    connection: Connection, model: str, messages: list[dict[str, str]]
) -> tuple[str, float, int]:
    """The text, when its first piece came, and the tokens of the prompt."""
    body = {"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    body |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    answer = await connection.post("/v1/chat/completions", json.dumps(body).encode())
    text, first_s, prompt_tokens, rest = "", 0.0, 0, b""
    async for piece in answer.body:
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            if not event.startswith(b"data: {"):
                continue
            chunk: dict[str, Any] = json.loads(event[6:])
            for choice in chunk["choices"]:
                said = choice["delta"].get("content") or ""
                first_s = first_s or (time.perf_counter() if said else 0.0)
                text += said
            prompt_tokens = (chunk.get("usage") or {}).get("prompt_tokens", prompt_tokens)
    assert answer.status == 200, answer.status
    assert first_s, "an answer without text"
    assert prompt_tokens, "an answer without usage"
    return text, first_s, prompt_tokens


def counted(record: MeshRecord) -> Counter[str]:
    """Sums of what the processes of the mesh count."""
    sums: Counter[str] = Counter()
    for process in record.processes:
        if process.role in ("worker", "scheduler"):
            url = f"http://127.0.0.1:{process.ports['metrics']}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                for name, value in _FIGURE.findall(answer.read().decode()):
                    sums[name] += int(float(value))
    return sums


async def all_at_once(record: MeshRecord, round: int) -> list[Turn]:
    numbers = iter(range(CONVERSATIONS))
    runs = await asyncio.gather(*(converse(record, numbers, round) for _ in range(AT_ONCE)))
    return [turn for turns in runs for turn in turns]


def one_run(folder: Path, *, routing: bool, round: int) -> Run:
    chosen = f"scheduler.prefix_routing={str(routing).lower()}"
    model = ("--model", f"{folder}=random", "--workers", str(WORKERS), "--threads", "1")
    with rig.mesh(*model, "--set", chosen) as record:
        before = counted(record)
        turns = asyncio.run(all_at_once(record, round))
        made = counted(record) - before
    return Run(routing, round, int(made[QUERIES]), int(made[HITS]), int(made[ROUTED]), turns)


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    runs = []
    with tempfile.TemporaryDirectory() as name:
        random_llama.make(Path(name), "30m")
        for round in range(arguments.rounds):
            for routing in random.Random(round).sample([True, False], 2):
                runs.append(one_run(Path(name), routing=routing, round=round))
    off, on = ([run for run in runs if run.routing is routing] for routing in (False, True))
    rig.show(("", "off", "on", "off / on"), [*_rates(off, on), *_waits(off, on)])
    shape = {"workers": WORKERS, "conversations": CONVERSATIONS, "at_once": AT_ONCE}
    rig.keep(arguments.json, before, shape | {"runs": [asdict(run) for run in runs]})


def _rates(off: list[Run], on: list[Run]) -> list[tuple[str, ...]]:
    rates = [sum(r.hit_tokens for r in s) / sum(r.asked_tokens for r in s) for s in (off, on)]
    return [("prompt tokens found", *(f"{rate:.1%}" for rate in rates), "")]


def _waits(off: list[Run], on: list[Run]) -> Iterator[tuple[str, ...]]:
    """The median alone would hide a turn in four that begins anew."""
    for what, turns in (("first turns", range(1, 2)), ("later turns", range(2, TURNS + 1))):
        first_s = [
            [t.first_s for r in side for t in r.turns if t.turn in turns] for side in (off, on)
        ]
        for name, figure in (("p50", statistics.median), ("mean", statistics.mean), ("p90", _p90)):
            seconds = [figure(side) for side in first_s]
            times = (f"{s * 1e3:.0f} ms" for s in seconds)
            yield f"first token, {what}, {name}", *times, f"{seconds[0] / seconds[1]:.2f}x"


def _p90(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=10)[-1]


if __name__ == "__main__":
    main()

"""What the prefix cache gains where contexts begin alike, and costs where they do not.

Conversations: the time to the first token of every turn. They take turns, so that each finds its
beginning where others have come in between. Strangers: output tokens per CPU second of requests
with nothing in common, in an engine whose slots are all full of what others left.

The engine alone, in this process, on one thread. The weights are random: time does not depend on
what they say. CPU time is given as well, for on a busy machine it is the steadier figure.

python benchmarks/prefix_cache.py --json benchmarks/results/prefix_cache.json
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import rig
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import Engine, SamplingParameters, Sequence
from headrace_worker.engine.loading.builder import EngineBuilder

CONVERSATIONS, TURNS = 6, 5
SYSTEM_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 128, 48, 48
VOCABULARY = 8192
STRANGERS_IN_FLIGHT, STRANGERS_SLOTS = (4, 16), 64
ANSWER = SamplingParameters(max_tokens=ANSWER_TOKENS, temperature=0, ignore_eos=True)


@dataclass(frozen=True, slots=True)
class FirstToken:
    prefix_cache: bool
    round: int
    turn: int
    prompt_tokens: int
    computed_tokens: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Strangers:
    prefix_cache: bool
    round: int
    in_flight: int
    output_tokens: int
    cpu_s: float


def weights() -> LlamaForCausalLM:
    """31 million parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config)


def engine(model: LlamaForCausalLM, *, prefix_cache: bool, slots: int) -> Engine:
    settings = WorkerSettings.model_validate(
        {"max_slots": slots, "context_tokens": 1024, "prefix_cache": prefix_cache}
    )
    return EngineBuilder(model, settings).build()


def conversations(engine: Engine, *, prefix_cache: bool, round: int) -> Iterator[FirstToken]:
    """Each asks, hears the whole answer, and the next one is up."""
    draw = random.Random(round)
    system = [draw.randrange(VOCABULARY) for _ in range(SYSTEM_TOKENS)]
    said = {number: list(system) for number in range(CONVERSATIONS)}
    for turn in range(TURNS):
        for number, text in said.items():
            text += [draw.randrange(VOCABULARY) for _ in range(QUESTION_TOKENS)]
            computed = engine.statistics().prompt_tokens
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            engine.admit(Sequence(number, tuple(text), (), ANSWER, seed=0))
            answer: list[int] = []
            while not answer:
                answer += engine.step().token_ids
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
            computed = engine.statistics().prompt_tokens - computed
            yield FirstToken(prefix_cache, round, turn + 1, len(text), computed, wall_s, cpu_s)
            while engine.has_work:
                answer += engine.step().token_ids
            text += answer


def strangers(engine: Engine, in_flight: int, *, prefix_cache: bool, round: int) -> Strangers:
    draw = random.Random(round)
    for number in range(STRANGERS_SLOTS):
        engine.admit(_stranger(draw, number, prompt_tokens=20, max_tokens=2))
    while engine.has_work:
        engine.step()
    waiting = [
        _stranger(draw, number, draw.randrange(150, 250), draw.randrange(16, 96))
        for number in range(in_flight + 16)
    ]
    output_tokens, cpu_s = 0, time.process_time()
    while waiting or engine.has_work:
        while waiting and engine.statistics().running < in_flight:
            engine.admit(waiting.pop())
        output_tokens += len(engine.step().token_ids)
    cpu_s = time.process_time() - cpu_s
    return Strangers(prefix_cache, round, in_flight, output_tokens, cpu_s)


def _stranger(draw: random.Random, number: int, prompt_tokens: int, max_tokens: int) -> Sequence:
    prompt_ids = tuple(draw.randrange(VOCABULARY) for _ in range(prompt_tokens))
    return Sequence(number, prompt_ids, (), replace(ANSWER, max_tokens=max_tokens), seed=0)


def measure(rounds: int) -> tuple[list[FirstToken], list[Strangers]]:
    torch.set_num_threads(1)
    model = weights()
    first_tokens: list[FirstToken] = []
    costs: list[Strangers] = []
    for round in range(rounds):
        for on in random.Random(round).sample([True, False], 2):
            talk = engine(model, prefix_cache=on, slots=8)
            first_tokens += conversations(talk, prefix_cache=on, round=round)
        for in_flight in STRANGERS_IN_FLIGHT:
            for on in random.Random(f"{round} {in_flight}").sample([True, False], 2):
                full = engine(model, prefix_cache=on, slots=STRANGERS_SLOTS)
                costs.append(strangers(full, in_flight, prefix_cache=on, round=round))
                print(costs[-1])
    return first_tokens, costs


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    first_tokens, costs = measure(arguments.rounds)
    rig.show(
        ("turn", "prompt", "computed", "without", "with", "ratio", "CPU without", "CPU with"),
        [_row(first_tokens, turn + 1) for turn in range(TURNS)],
    )
    rig.show(
        ("strangers in flight", "tokens/CPU s without", "with", "ratio"),
        [_cost_row(costs, in_flight) for in_flight in STRANGERS_IN_FLIGHT],
    )
    results = {
        "conversations": CONVERSATIONS,
        "system_tokens": SYSTEM_TOKENS,
        "question_tokens": QUESTION_TOKENS,
        "answer_tokens": ANSWER_TOKENS,
        "first_tokens": [asdict(each) for each in first_tokens],
        "strangers": [asdict(each) for each in costs],
    }
    rig.keep(arguments.json, before, results)


def _cost_row(costs: list[Strangers], in_flight: int) -> tuple[str, ...]:
    off, on = (
        rig.median(
            [
                each.output_tokens / each.cpu_s
                for each in costs
                if (each.in_flight, each.prefix_cache) == (in_flight, cached)
            ]
        )
        for cached in (False, True)
    )
    return str(in_flight), f"{off:.0f}", f"{on:.0f}", f"{on / off:.2f}x"


def _row(found: list[FirstToken], turn: int) -> tuple[str, ...]:
    off, on = ([f for f in found if (f.turn, f.prefix_cache) == (turn, c)] for c in (False, True))
    wall, cpu = ([rig.median([getattr(f, n) for f in side]) for side in (off, on)] for n in _TIMES)
    return (
        *(str(turn), str(on[0].prompt_tokens)),
        f"{rig.median([f.computed_tokens for f in on]):.0f}",
        *(f"{s * 1e3:.0f} ms" for s in wall),
        f"{wall[0] / wall[1]:.1f}x",
        *(f"{s * 1e3:.0f} ms" for s in cpu),
    )


_TIMES = ("wall_s", "cpu_s")


if __name__ == "__main__":
    main()

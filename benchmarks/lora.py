"""What adapters cost: CPU time of a decode step, by how many are worn and by how many sequences.

A random Llama of 31 million parameters, one thread, adapters of rank 16 on every layer but the
output embeddings. "one" and "eight": every sequence has one, the same or each of eight in turn;
"half": every other sequence has one of eight, the others none; "held": eight are held and none
is worn. Compared with an engine that takes no adapters.

python benchmarks/lora.py --json benchmarks/results/lora.json
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaForCausalLM

import rig
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.loading.builder import EngineBuilder
from headrace_worker.engine.lora.adapter_files import CONFIG, WEIGHTS
from prefix_cache import VOCABULARY, weights

ADAPTERS, RANK = 8, 16
IN_FLIGHT, PROMPT_TOKENS, STEPS = (8, 32), 48, 24
KINDS = ("none", "held", "one", "half", "eight")


@dataclass(frozen=True, slots=True)
class Cost:
    kind: str
    in_flight: int
    round: int
    prefill_cpu_s: float
    """Of all prompts together."""
    step_cpu_s: float
    """Of one decode step."""


def write_adapter(folder: Path, model: LlamaForCausalLM, number: int) -> Path:
    """Random, in peft's form."""
    torch.manual_seed(number)
    tensors = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and path != "lm_head":
            key = f"base_model.model.{path}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, module.in_features) / 50
            tensors[f"{key}.lora_B.weight"] = torch.randn(module.out_features, RANK) / 50
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": RANK}))
    return folder


def digest_of(kind: str, number: int, digests: list[str]) -> str:
    """What sequence `number` has."""
    match kind:
        case "one":
            return digests[0]
        case "half":
            return digests[number // 2 % ADAPTERS] if number % 2 else ""
        case "eight":
            return digests[number % ADAPTERS]
        case _:
            return ""


def cost(engine: SlotEngine, kind: str, in_flight: int, digests: list[str], round: int) -> Cost:
    draw = random.Random(round)
    greedy = SamplingParameters(max_tokens=STEPS + 1, temperature=0, ignore_eos=True)
    for number in range(in_flight):
        prompt_ids = tuple(draw.randrange(VOCABULARY) for _ in range(PROMPT_TOKENS))
        adapter = digest_of(kind, number, digests)
        engine.admit(Sequence(number, prompt_ids, (), greedy, seed=0, adapter=adapter))
    began_s = time.process_time()
    engine.step()
    prefilled_s = time.process_time()
    for _ in range(STEPS):
        engine.step()
    step_s = (time.process_time() - prefilled_s) / STEPS
    assert not engine.has_work
    return Cost(kind, in_flight, round, prefilled_s - began_s, step_s)


def engines(folder: Path) -> tuple[SlotEngine, SlotEngine, list[str]]:
    """One that takes no adapters; one that holds eight, and their digests."""
    # All prompts in one step, so that what follows is decode steps alone.
    settings = WorkerSettings.model_validate(
        {
            "max_slots": max(IN_FLIGHT),
            "context_tokens": 256,
            "prefill_chunk_tokens": 4096,
            "prefix_cache": False,
        }
    )
    plain = EngineBuilder(weights(), settings).build()
    model = weights()
    bounds = {"adapters_dir": folder, "max_adapters": ADAPTERS, "max_adapter_rank": RANK}
    adapted = EngineBuilder(model, settings.model_copy(update=bounds)).build()
    digests = []
    for number in range(ADAPTERS):
        fitted = adapted.adapters.load(write_adapter(folder / str(number), model, number))
        adapted.adapters.add(fitted)
        digests.append(fitted.digest)
    return plain, adapted, digests


def measure(rounds: int, folder: Path) -> Iterator[Cost]:
    torch.set_num_threads(1)
    plain, adapted, digests = engines(folder)
    for round in range(rounds):
        for in_flight in IN_FLIGHT:
            for kind in random.Random(f"{round} {in_flight}").sample(KINDS, len(KINDS)):
                engine = plain if kind == "none" else adapted
                yield cost(engine, kind, in_flight, digests, round)


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        costs = list(measure(arguments.rounds, Path(folder)))
    rig.show(
        ("in flight", "adapters", "CPU a step", "of none", "CPU of prompts", "of none"),
        [_row(costs, in_flight, kind) for in_flight in IN_FLIGHT for kind in KINDS],
    )
    shape = {"adapters": ADAPTERS, "rank": RANK, "prompt_tokens": PROMPT_TOKENS, "steps": STEPS}
    rig.keep(arguments.json, before, {**shape, "costs": [asdict(each) for each in costs]})


def _row(costs: list[Cost], in_flight: int, kind: str) -> tuple[str, ...]:
    def medians(of: str) -> tuple[float, float]:
        found = [each for each in costs if (each.in_flight, each.kind) == (in_flight, of)]
        return (
            rig.median([each.step_cpu_s for each in found]),
            rig.median([each.prefill_cpu_s for each in found]),
        )

    (step, prefill), (plain_step, plain_prefill) = medians(kind), medians("none")
    return (
        *(str(in_flight), kind),
        *(f"{step * 1e3:.1f} ms", f"{step / plain_step:.2f}x"),
        *(f"{prefill * 1e3:.0f} ms", f"{prefill / plain_prefill:.2f}x"),
    )


if __name__ == "__main__":
    main()

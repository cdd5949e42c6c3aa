"""The engine without a mesh around it, in a process of its own: what the mesh is measured by.

Reads `IN_FLIGHT REQUESTS` from standard input, a line for each run, and answers each with a
line of JSON: the outcomes of `headrace.bench.figures`.

python benchmarks/engine_alone.py WEIGHTS PROMPT_WORDS MAX_TOKENS THREADS
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from transformers import AutoTokenizer

from headrace.bench.figures import Outcome
from headrace.bench.load import Load
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import Engine, SamplingParameters, Sequence
from headrace_worker.engine.loading.loader import load


class Prompts:
    """The same as the load generator sends, by number."""

    def __init__(self, weights: Path, words: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(weights)
        self._load = Load("", "", prompt_words=words)

    def __getitem__(self, number: int) -> tuple[int, ...]:
        messages = json.loads(self._load.body(number))["messages"]
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))


def run(
    engine: Engine, prompts: Prompts, parameters: SamplingParameters, in_flight: int, requests: int
) -> list[Outcome]:
    """Keep `in_flight` sequences in the engine until `requests` have ended."""
    outcomes: dict[int, Outcome] = {}
    ended = 0
    while ended < requests:
        while len(outcomes) < requests and len(outcomes) - ended < in_flight:
            number = len(outcomes)
            outcomes[number] = Outcome(time.perf_counter())
            engine.admit(Sequence(number, prompts[number], (), parameters, seed=0))
        output = engine.step()
        now_s = time.perf_counter()
        for number in output.sequence_ids:
            outcomes[number].text_times_s.append(now_s)
            outcomes[number].output_tokens += 1
        for number, _ in output.finished:
            outcomes[number].ended_s = now_s
        ended += len(output.finished)
        assert not output.failed, output.failed
    return list(outcomes.values())


def main() -> None:
    weights = Path(sys.argv[1])
    words, max_tokens, threads = map(int, sys.argv[2:])
    engine = load(
        WorkerSettings.model_validate({"model_source": str(weights), "threads": threads})
    ).engine
    prompts = Prompts(weights, words)
    parameters = SamplingParameters(max_tokens=max_tokens, temperature=0.0)
    print("ready", flush=True)
    for line in sys.stdin:
        in_flight, requests = map(int, line.split())
        outcomes = run(engine, prompts, parameters, in_flight, requests)
        print(json.dumps([asdict(outcome) for outcome in outcomes]), flush=True)


if __name__ == "__main__":
    main()

"""torchrun --nproc-per-node 2 parallel_engine.py FOLDER: one engine over all processes.

The first prints what greedy and sampled sequences say together, as JSON, by number.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.loading.loader import load
from headrace_worker.engine.model import tensor_parallel
from helpers.running_engine import GREEDY, SAMPLED, run, sequence
from helpers.worker_settings import worker_settings

SEQUENCES = [
    sequence(number, replace((GREEDY, SAMPLED)[number % 2], ignore_eos=True)) for number in range(6)
]


def main() -> None:
    settings = worker_settings(
        model_source=sys.argv[1], threads=1, max_slots=3, context_tokens=64, kv_store="pages"
    )
    follows = tensor_parallel.join() > 0
    engine = load(settings).engine
    assert isinstance(engine, SlotEngine)
    if follows:
        tensor_parallel.follow(engine.runner)
    else:
        print(json.dumps(run(engine, SEQUENCES).tokens), flush=True)


if __name__ == "__main__":
    main()

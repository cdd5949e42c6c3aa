"""Inputs a CPU second, by how many share a forward pass.

One by one, as a loop over texts would; in batches of 32 as they come, padded to their longest, as
such loops mostly do; and by the engine's passes of nearly one length, at several bounds.

The engine alone, in this process, on one thread. A random model of MiniLM-L6's shape, 22 million
parameters; lengths as of questions and paragraphs mixed.

python benchmarks/embeddings.py --json benchmarks/results/embeddings.json
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from transformers import BertConfig, BertModel

import rig
from headrace_worker.engine.base.interface import EngineFacts, SamplingParameters, Sequence
from headrace_worker.engine.encoder.batching import BatchMode
from headrace_worker.engine.encoder.encoder_engine import EncoderEngine
from headrace_worker.engine.encoder.encoder_runner import EncoderModelRunner
from headrace_worker.engine.encoder.pooling import Normalize, TextHead

INPUTS, SLOTS, BATCH = 256, 256, 32
CONTEXT_TOKENS, VOCABULARY = 512, 30522
ALONE, BATCHES = "one by one", f"batches of {BATCH} as they come"
PASSES = (256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Run:
    how: str
    round: int
    inputs: int
    tokens: int
    passes: int
    cpu_s: float


def forward() -> EncoderModelRunner:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=CONTEXT_TOKENS,
    )
    model = BertModel(config).train(False)
    head = TextHead(("mean",), [Normalize()])
    return EncoderModelRunner(
        model, head, output="last_hidden_state", pad_token_id=0, has_token_types=True
    )


def inputs(round: int) -> list[Sequence]:
    """Median 30 tokens, a tenth beyond 100."""
    draw = random.Random(round)
    none = SamplingParameters(max_tokens=0)
    lengths = [min(CONTEXT_TOKENS, max(4, int(draw.lognormvariate(3.4, 1)))) for _ in range(INPUTS)]
    return [
        Sequence(
            number, tuple(draw.randrange(1000, VOCABULARY) for _ in range(length)), (), none, 0
        )
        for number, length in enumerate(lengths)
    ]


def in_batches(forward: EncoderModelRunner, waiting: list[Sequence], size: int) -> int:
    """Returns how many passes it took."""
    with torch.inference_mode():
        for first in range(0, len(waiting), size):
            forward.run(waiting[first : first + size])
    return -(-len(waiting) // size)


def by_engine(forward: EncoderModelRunner, waiting: list[Sequence], batch_tokens: int) -> int:
    facts = EngineFacts(
        name="encoder",
        dtype="float32",
        max_slots=SLOTS,
        context_tokens=CONTEXT_TOKENS,
        vocabulary_size=VOCABULARY,
        eos_token_ids=(),
        weights_digest="",
        batch_invariant=False,
        makes_vectors=True,
    )
    engine = EncoderEngine(forward, facts, batch_tokens=batch_tokens, batch_mode=BatchMode.PADDED)
    left = iter(waiting)
    for _ in range(SLOTS):
        engine.admit(next(left))
    while engine.has_work:
        for _ in engine.step().finished:
            if (one := next(left, None)) is not None:
                engine.admit(one)
    return engine.statistics().steps


def runs(forward: EncoderModelRunner, round: int) -> Iterator[Run]:
    waiting = inputs(round)
    tokens = sum(len(each.prompt_ids) for each in waiting)
    ways = [ALONE, BATCHES, *map(str, PASSES)]
    for how in random.Random(round).sample(ways, len(ways)):
        began_s = time.process_time()
        if how in (ALONE, BATCHES):
            passes = in_batches(forward, waiting, 1 if how == ALONE else BATCH)
        else:
            passes = by_engine(forward, waiting, int(how))
        found = Run(how, round, INPUTS, tokens, passes, time.process_time() - began_s)
        print(found)
        yield found


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    torch.set_num_threads(1)
    model = forward()
    in_batches(model, inputs(-1)[:8], 4)  # what is allocated once
    found = [run for round in range(arguments.rounds) for run in runs(model, round)]
    rig.show(
        ("a pass has", "passes", "inputs/CPU s", "tokens/CPU s", "of one by one"),
        [_row(found, how) for how in (ALONE, BATCHES, *map(str, PASSES))],
    )
    rig.keep(arguments.json, before, {"slots": SLOTS, "runs": [asdict(run) for run in found]})


def _row(found: list[Run], how: str) -> tuple[str, ...]:
    own = [run for run in found if run.how == how]
    rate = rig.median([run.inputs / run.cpu_s for run in own])
    alone = rig.median([run.inputs / run.cpu_s for run in found if run.how == ALONE])
    name = how if not how.isdigit() else f"at most {how} tokens"
    return (
        name,
        f"{rig.median([run.passes for run in own]):.0f}",
        f"{rate:.0f}",
        f"{rig.median([run.tokens / run.cpu_s for run in own]):.0f}",
        f"{rate / alone:.2f}x",
    )


if __name__ == "__main__":
    main()

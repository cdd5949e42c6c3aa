"""How fast the engine alone decodes on a GPU, held against what its memory can deliver.

Random weights of well-known shapes in bfloat16; time does not depend on what they say. All prompts
come at once; after the last first token, every step decodes all rows. A step must read all weights
and the keys and values of all rows, so their bytes over the memory's bandwidth, which is measured
here too, are the least it can take.

`async` launches steps before the last is read (captured graphs, tokens sampled on the device);
`sync` reads every step's logits on the host first: what that is worth.

python benchmarks/gpu_engine.py --json benchmarks/results/gpu_engine.json
python benchmarks/gpu_engine.py --shape tiny --device cpu --batch 1 4   # tries the script
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import asdict, dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import rig
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import Engine, SamplingParameters, Sequence
from headrace_worker.engine.loading.builder import EngineBuilder

PROMPT_TOKENS, OUTPUT_TOKENS = 512, 256
SHAPES: dict[str, dict[str, object]] = {
    # Of Llama-3-8B and of Llama-3.2-1B.
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
SAMPLINGS = {"greedy": (0.0, 1.0), "sampled": (0.8, 0.95)}
"""Temperature and top-p."""


@dataclass(frozen=True, slots=True)
class Run:
    shape: str
    mode: str
    sampling: str
    batch: int
    round: int
    prefill_s: float
    """Until every row has its first token."""
    decode_s: float
    decode_steps: int
    output_tokens_per_s: float
    step_ms: float
    least_step_ms: float
    """Weights, keys and values over the measured bandwidth, at the middle of the output."""
    peak_memory_gib: float


def weights(shape: str, device: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    fields: dict[str, object] = {
        "vocab_size": 128256,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        **SHAPES[shape],
    }
    config = LlamaConfig(**fields)  # type: ignore[arg-type]  # theirs
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    # Made where it is used, and in its own type: eight billion weights on a CPU take minutes.
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model


def engine(model: LlamaForCausalLM, mode: str, batch: int) -> Engine:
    settings = WorkerSettings.model_validate(
        {
            "max_slots": batch,
            "context_tokens": PROMPT_TOKENS + OUTPUT_TOKENS,
            "prefix_cache": False,
            "kv_store": "pages",
        }
    )
    return EngineBuilder(model, settings, async_scheduling=mode == "async").build()


def measure(engine: Engine, sampling: str, batch: int, *, round: int) -> tuple[float, float, int]:
    """Seconds of prefill and of decoding, and the steps of the latter."""
    temperature, top_p = SAMPLINGS[sampling]
    parameters = SamplingParameters(
        max_tokens=OUTPUT_TOKENS, temperature=temperature, top_p=top_p, ignore_eos=True
    )
    draw, most = random.Random(round), engine.facts.vocabulary_size
    began_s = time.perf_counter()
    for number in range(batch):
        prompt = tuple(draw.randrange(most) for _ in range(PROMPT_TOKENS))
        engine.admit(Sequence(number, prompt, (), parameters, seed=number))
    started: set[int] = set()
    while len(started) < batch:
        started |= set(engine.step().sequence_ids)
    prefilled_s, steps = time.perf_counter(), engine.statistics().steps
    while engine.has_work:
        engine.step()
    ended_s = time.perf_counter()
    return prefilled_s - began_s, ended_s - prefilled_s, engine.statistics().steps - steps


def bandwidth(device: str) -> float:
    """Bytes per second that this device's memory delivers to a copy, reads and writes counted."""
    size = 1 << (30 if device == "cuda" else 26)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target, best_s = torch.empty_like(source), float("inf")
    for _ in range(5):
        _settle(device)
        began_s = time.perf_counter()
        target.copy_(source)
        _settle(device)
        best_s = min(best_s, time.perf_counter() - began_s)
    return 2 * size / best_s


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def step_bytes(model: LlamaForCausalLM, batch: int) -> int:
    """What a decode step must read: all weights but the embedding's rows, all keys and values."""
    config = model.config
    size = model.dtype.itemsize
    # Tied, the embedding's weights are the last matrix too, and listed once.
    skipped = () if config.tie_word_embeddings else ("model.embed_tokens.weight",)
    read = sum(p.numel() for name, p in model.named_parameters() if name not in skipped)
    head_size = config.head_dim or config.hidden_size // config.num_attention_heads
    key_heads = config.num_key_value_heads or config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * key_heads * head_size
    return size * (read + batch * (PROMPT_TOKENS + OUTPUT_TOKENS // 2) * per_token)


def runs_of(shape: str, options: argparse.Namespace, bytes_per_s: float) -> list[Run]:
    model, found = weights(shape, options.device), []
    for mode in options.mode:
        for batch in options.batch:
            running = engine(model, mode, batch)
            for round in range(options.rounds + 1):
                for sampling in options.sampling:
                    prefill_s, decode_s, steps = measure(running, sampling, batch, round=round)
                    if round == 0:
                        continue  # kernels are compiled and memory is taken
                    tokens = batch * (OUTPUT_TOKENS - 1)
                    run = Run(
                        *(shape, mode, sampling, batch, round, prefill_s, decode_s, steps),
                        output_tokens_per_s=tokens / decode_s,
                        step_ms=1000 * decode_s / steps,
                        least_step_ms=1000 * step_bytes(model, batch) / bytes_per_s,
                        peak_memory_gib=_peak_gib(options.device),
                    )
                    found.append(run)
            del running
    return found


def _peak_gib(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--shape", nargs="+", default=["1b", "8b"], choices=list(SHAPES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--mode", nargs="+", default=["async", "sync"])
    parser.add_argument("--sampling", nargs="+", default=list(SAMPLINGS), choices=list(SAMPLINGS))
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    machine = rig.facts() | {"device": _device_name(options.device)}
    bytes_per_s = bandwidth(options.device)
    runs = [run for shape in options.shape for run in runs_of(shape, options, bytes_per_s)]
    heads = ("shape", "mode", "sampling", "batch", "tokens/s", "step", "least", "ratio", "prefill")
    rows = []
    for first in [run for run in runs if run.round == 1]:
        same = [r for r in runs if _case(r) == _case(first)]
        step_ms = rig.median([run.step_ms for run in same])
        rate = rig.median([run.output_tokens_per_s for run in same])
        prefill_s = rig.median([run.prefill_s for run in same])
        ratio, least_ms = step_ms / first.least_step_ms, first.least_step_ms
        figures = (f"{step_ms:.2f} ms", f"{least_ms:.2f} ms", f"{ratio:.2f}x", f"{prefill_s:.2f} s")
        rows.append((*_case(first), f"{rate:.0f}", *figures))
    rig.show(heads, rows)
    results = {"bytes_per_s": bytes_per_s, "runs": [asdict(run) for run in runs]}
    rig.keep(options.json, machine, results)


def _case(run: Run) -> tuple[str, str, str, int]:
    return run.shape, run.mode, run.sampling, run.batch


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    main()

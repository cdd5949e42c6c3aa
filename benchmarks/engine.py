"""What a decode step costs over its own matrix products, and what the precisions gain and err.

The engine alone, in this process, on one thread; a random Llama of 31 million parameters, for
time does not depend on what weights say. At each batch and context, engines of all precisions
are alive at once and take turns step by step; after each step come the same products alone:
every linear layer of the same model, with as many rows, as the engine multiplies and as torch does;
and as many bytes as the cache holds, read once and summed, for no attention is quicker than that.
Process CPU time, medians.

Errors: the model that ships, shown its own float32 answers token by token.

python benchmarks/engine.py --json benchmarks/results/engine.json
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

import headrace_worker
import rig
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import Engine, SamplingParameters, Sequence
from headrace_worker.engine.base.precision import Precision, quantize_to_int8
from headrace_worker.engine.loading.builder import EngineBuilder
from prefix_cache import VOCABULARY, weights

PRECISIONS = (
    Precision(),
    Precision("bfloat16"),
    Precision("float32", "int8"),
    Precision("bfloat16", "int8"),
)
BATCHES, CONTEXTS = (1, 8, 32, 64), (64, 512)
STEPS = 16
DEFAULT_MODEL = Path(headrace_worker.__file__).parent / "default_model"
QUESTIONS = (
    *("Hello!", "Who are you?", "Tell me a story.", "Who lives in Willowmere?"),
    *("What does Ada do?", "Count from three to nine.", "Sort: pear, fig, apple.", "What is JSON?"),
)
ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Step:
    precision: str
    round: int
    batch: int
    context: int
    step_cpu_s: float
    """Median of the engine's steps."""
    products_cpu_s: float
    """Median of the same linear layers alone."""
    torch_products_cpu_s: float
    """Median of the same by torch's `linear`, over weights as the files have them."""
    reading_cpu_s: float
    """Median of reading as many bytes as the keys and values of that context."""


@dataclass(frozen=True, slots=True)
class Error:
    precision: str
    tokens: int
    logits: float
    """Root mean square of the differences to float32, as a share of its logits' spread."""
    agreement: float
    """Share of the tokens that float32 chose and this precision would have chosen as well."""
    weight_bytes: int
    """Of the random Llama."""


def in_precision(model: PreTrainedModel, precision: Precision) -> PreTrainedModel:
    model = model.to(precision.torch_dtype)  # type: ignore[arg-type]  # theirs
    if precision.quantization == "int8":
        quantize_to_int8(model)
    return model


class Bench:
    """One precision's engine and its model."""

    def __init__(self, precision: Precision, slots: int, context_tokens: int) -> None:
        self.model = in_precision(weights(), precision)
        values = {
            "max_slots": slots,
            "context_tokens": context_tokens,
            "prefill_chunk_tokens": 256,
            "quantization": precision.quantization,
        }
        self._linears = [m for m in self.model.modules() if isinstance(m, nn.Linear)]
        self._weights = [layer.weight for layer in self._linears]
        self.engine: Engine = EngineBuilder(
            self.model, WorkerSettings.model_validate(values)
        ).build()

    def fill(self, running: int, prompt_tokens: int) -> None:
        """Have so many sequences decode, each with so much context.

        The prompts are the same every time, so that the prefix cache has most of them.
        """
        endless = SamplingParameters(max_tokens=10**6, temperature=0, ignore_eos=True)
        for number in range(self.engine.facts.max_slots):
            self.engine.cancel(number)
        for number in range(running):
            draw = random.Random(number)
            prompt_ids = tuple(draw.randrange(VOCABULARY) for _ in range(prompt_tokens))
            self.engine.admit(Sequence(number, prompt_ids, (), endless, seed=0))
        while len(self.engine.step().token_ids) < running:
            pass

    def products(self, rows: int, *, torchs_own: bool) -> Callable[[], None]:
        """Every linear layer once, on inputs of its own."""
        sizes = [layer.in_features for layer in self._linears]
        inputs = {size: torch.randn(1, rows, size).to(self.model.dtype) for size in sizes}
        ways: list[Callable[[Tensor], Tensor]] = list(self._linears)
        if torchs_own:
            ways = [partial(_linear, weight) for weight in self._weights]

        def run() -> None:
            with torch.inference_mode():
                for way, size in zip(ways, sizes, strict=True):
                    way(inputs[size])

        return run

    def reading(self, tokens: int) -> Callable[[], None]:
        """As many bytes as the cache has for so many tokens, once."""
        config = self.model.config
        size = config.hidden_size // config.num_attention_heads
        numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * size * tokens
        held = torch.ones(numbers, dtype=self.model.dtype)

        def run() -> None:
            held.sum()

        return run

    @property
    def weight_bytes(self) -> int:
        parts = (part for parameter in self.model.parameters() for part in _parts(parameter))
        return sum(part.numel() * part.element_size() for part in parts)


def _linear(weight: Tensor, rows: Tensor) -> Tensor:
    return linear(rows, weight)


def _parts(parameter: Tensor) -> Iterator[Tensor]:
    """The tensors that a quantized one is made of; else itself."""
    parts = [getattr(parameter, name, None) for name in ("qdata", "scale")]
    found = [part for part in parts if isinstance(part, Tensor)]
    yield from found or [parameter]


def steps(rounds: int, context: int, precisions: tuple[Precision, ...]) -> Iterator[Step]:
    benches = {p.name: Bench(p, max(BATCHES), 2 * context) for p in precisions}
    for round, batch in itertools.product(range(rounds), BATCHES):
        for bench in benches.values():
            bench.fill(batch, context - STEPS // 2)
        doings: dict[str, tuple[Callable[[], object], ...]] = {
            name: (
                bench.engine.step,
                bench.products(batch, torchs_own=False),
                bench.products(batch, torchs_own=True),
                bench.reading(batch * context),
            )
            for name, bench in benches.items()
        }
        took: dict[str, list[tuple[float, ...]]] = {name: [] for name in benches}
        for _ in range(STEPS):
            for name in benches:
                took[name].append(tuple(map(_cpu_s, doings[name])))
        for name, rows in took.items():
            medians = [rig.median(list(column)) for column in zip(*rows, strict=True)]
            yield Step(name, round, batch, context, *medians)


def _cpu_s(do: Callable[[], object]) -> float:
    began_s = time.process_time()
    do()
    return time.process_time() - began_s


def errors(precisions: tuple[Precision, ...]) -> Iterator[Error]:
    texts = list(_answers())
    exact: list[Tensor] = []
    for precision in precisions:
        plain = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype=torch.float32)
        model = in_precision(plain, precision)
        with torch.inference_mode():
            logits = [model(text[None]).logits[0, at - 1 : -1].float() for text, at in texts]
        exact = exact or logits
        joined, reference = torch.cat(logits), torch.cat(exact)
        error = (joined - reference).square().mean().sqrt() / reference.std()
        agreement = (joined.argmax(-1) == reference.argmax(-1)).float().mean()
        size = Bench(precision, 1, 64).weight_bytes
        yield Error(precision.name, len(joined), float(error), float(agreement), size)


def _answers() -> Iterator[tuple[Tensor, int]]:
    """What the model that ships says in float32, and where its answers begin."""
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_MODEL)
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype=torch.float32)
    for question in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        text = str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        said = cast(Any, model).generate(
            **prompt, max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=0
        )
        yield said[0], prompt["input_ids"].shape[1]


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("--float32", action="store_true", help="leave out the other precisions")
    arguments = parser.parse_args()
    before = rig.facts()
    torch.set_num_threads(1)
    precisions = PRECISIONS[:1] if arguments.float32 else PRECISIONS
    disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    found: list[Step] = []
    for context in CONTEXTS:
        for step in steps(arguments.rounds, context, precisions):
            print(step, flush=True)
            found.append(step)
    erred = list(errors(precisions))
    for context in CONTEXTS:
        head = (
            *("batch", "context", "float32 step", "products", "ratio"),
            *("torch's products", "ratio", "reading", "to products and reading"),
        )
        rig.show((*head, *(p.name for p in precisions[1:])), _rows(found, context, precisions))
    sizes = erred[0].weight_bytes
    rig.show(
        ("precision", "weights", "logits off by", "same choice"),
        [
            (e.precision, f"{e.weight_bytes / sizes:.2f}x", f"{e.logits:.2%}", f"{e.agreement:.1%}")
            for e in erred
        ],
    )
    results = {"steps": [asdict(s) for s in found], "errors": [asdict(e) for e in erred]}
    rig.keep(arguments.json, before, results)


def _rows(
    found: list[Step], context: int, precisions: tuple[Precision, ...]
) -> list[tuple[str, ...]]:
    rows = []
    for batch in BATCHES:
        here = [s for s in found if (s.batch, s.context) == (batch, context)]
        by_name = {p.name: [s for s in here if s.precision == p.name] for p in precisions}
        exact = by_name[precisions[0].name]
        times = (
            _ms([s.step_cpu_s for s in exact]),
            _ms([s.products_cpu_s for s in exact]),
            _ratio([s.step_cpu_s / s.products_cpu_s for s in exact]),
            _ms([s.torch_products_cpu_s for s in exact]),
            _ratio([s.step_cpu_s / s.torch_products_cpu_s for s in exact]),
            _ms([s.reading_cpu_s for s in exact]),
            _ratio([s.step_cpu_s / (s.products_cpu_s + s.reading_cpu_s) for s in exact]),
        )
        gains = [_gain(exact, by_name[p.name]) for p in precisions[1:]]
        rows.append((str(batch), str(context), *times, *(f"{gain:.2f}x" for gain in gains)))
    return rows


def _ms(seconds: list[float]) -> str:
    return f"{rig.median(seconds) * 1e3:.1f} ms"


def _ratio(ratios: list[float]) -> str:
    return f"{rig.median(ratios):.2f}x"


def _gain(exact: list[Step], other: list[Step]) -> float:
    """Tokens per CPU second over those of float32, round by round."""
    pairs = zip(exact, other, strict=True)
    return rig.median([one.step_cpu_s / two.step_cpu_s for one, two in pairs])


if __name__ == "__main__":
    main()

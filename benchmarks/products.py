"""What laying weights out for oneDNN gains: one linear layer, torch's product beside ours.

The shapes are those of a Llama of 31 million parameters, its attention, its feed-forward and its
head, and of larger ones. Both ways take turns in this process, on one thread; medians of several
turns. Last, for how many rows a row's bits are not those it has among 1,024.

python benchmarks/products.py --json benchmarks/results/products.json
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

import rig
from headrace_worker.engine.base.prepacked_linear import prepack_linear_layers

SHAPES = ((512, 512), (512, 1536), (1536, 512), (576, 49152), (4096, 4096))
ROWS = (1, 2, 8, 32, 64, 256)
TURN_FLOPS = 4e8
LENGTHS = (*range(1, 66), 100, 127, 128, 129, 256, 300, 512)


@dataclass(frozen=True, slots=True)
class Product:
    dtype: str
    inputs: int
    outputs: int
    rows: int
    torch_s: float
    laid_out_s: float


@dataclass(frozen=True, slots=True)
class Bits:
    dtype: str
    inputs: int
    outputs: int
    rows_that_differ: list[int]
    """Numbers of rows whose product has other bits than among 1,024."""


def measure(rounds: int, layer: nn.Linear, plain: Tensor) -> Iterator[Product]:
    outputs, inputs = plain.shape
    for rows in ROWS:
        given = torch.randn(rows, inputs).to(plain.dtype)
        repeats = max(1, int(TURN_FLOPS / (2 * rows * inputs * outputs)))
        ways = partial(linear, given, plain), partial(layer, given)
        took: list[tuple[float, ...]] = []
        for _ in range(1 + 3 * rounds):
            took.append(tuple(_turn_s(way, repeats) for way in ways))
        medians = [rig.median(list(column)) for column in zip(*took[1:], strict=True)]
        yield Product(str(plain.dtype).removeprefix("torch."), inputs, outputs, rows, *medians)


def _turn_s(way: Callable[[], Tensor], repeats: int) -> float:
    began_s = time.process_time()
    for _ in range(repeats):
        way()
    return (time.process_time() - began_s) / repeats


def bits(layer: nn.Linear, dtype: torch.dtype) -> Bits:
    given = torch.randn(1024, layer.in_features).to(dtype)
    among: Tensor = layer(given)
    differ = [n for n in LENGTHS if not torch.equal(layer(given[:n]), among[:n])]
    name = str(dtype).removeprefix("torch.")
    return Bits(name, layer.in_features, layer.out_features, differ)


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    torch.set_num_threads(1)
    found: list[Product] = []
    equal: list[Bits] = []
    with torch.inference_mode():
        for dtype, (inputs, outputs) in itertools.product((torch.float32, torch.bfloat16), SHAPES):
            layer = nn.Linear(inputs, outputs, bias=False, dtype=dtype)
            plain = layer.weight.detach().clone()
            if not prepack_linear_layers(layer):
                raise SystemExit("this CPU has no AVX-512: weights stay as they are here")
            found += measure(arguments.rounds, layer, plain)
            equal.append(bits(layer, dtype))
    head = ("type", "inputs", "outputs", *(f"{rows} rows" for rows in ROWS))
    rig.show((*head, "bits differ at"), list(_rows(found, equal)))
    results = {"products": [asdict(p) for p in found], "bits": [asdict(b) for b in equal]}
    rig.keep(arguments.json, before, results)


def _rows(found: list[Product], equal: list[Bits]) -> Iterator[tuple[str, ...]]:
    for shape in equal:
        of_shape = [
            p
            for p in found
            if (p.dtype, p.inputs, p.outputs) == (shape.dtype, shape.inputs, shape.outputs)
        ]
        gains = [f"{p.torch_s / p.laid_out_s:.2f}x" for p in of_shape]
        differ = ", ".join(map(str, shape.rows_that_differ)) or "none"
        yield shape.dtype, str(shape.inputs), str(shape.outputs), *gains, differ


if __name__ == "__main__":
    main()

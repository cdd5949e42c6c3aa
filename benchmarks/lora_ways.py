"""Three ways to add a mixture of adapters to one layer's decode rows, in CPU time.

"all": rows go through all adapters' matrices at once, what is not theirs masked between the two (as
the engine does it); "gathered": each row through matrices gathered for it; "apart": each adapter's
rows through its own, one after the other. One thread; rows take turns over the adapters and none.

python benchmarks/lora_ways.py --json benchmarks/results/lora_ways.json
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

import rig
from headrace_worker.engine.lora.adapter_files import LoraWeights
from headrace_worker.engine.lora.lora_layers import (
    ActiveAdapters,
    AdaptedModule,
    AdapterRows,
    activate_adapters,
)

SIZES, ROWS, ADAPTERS, RANKS = (512, 2048), (8, 32), (2, 8), (16, 64)
REPEATS = 20


@dataclass(frozen=True, slots=True)
class Cost:
    size: int
    rows: int
    adapters: int
    rank: int
    way: str
    round: int
    cpu_s: float
    """Of the layer and what is added to it; "none": of the layer alone."""


def ways(size: int, rows: int, adapters: int, rank: int) -> dict[str, Callable[[], Tensor]]:
    """By name; all but "none" make the same."""
    layer = torch.nn.Linear(size, size, bias=False)
    changes = [
        LoraWeights(torch.randn(rank, size), torch.randn(rank, size)) for _ in range(adapters)
    ]
    given, wearers = torch.randn(1, rows, size), np.arange(rows) % (adapters + 1)
    patch = AdaptedModule(of_output_embeddings=False)
    for number, change in enumerate(changes, start=1):
        patch.add_adapter(layer, number, change)
    down = torch.stack([torch.zeros(size, rank), *(each.lora_a.T for each in changes)])
    up = torch.stack([torch.zeros(rank, size), *(each.lora_b for each in changes)])
    numbers = torch.from_numpy(wearers)
    own = [(numbers == number + 1).nonzero()[:, 0] for number in range(adapters)]

    # Made once for all layers of a pass.
    pass_ = ActiveAdapters([AdapterRows(slice(0, rows), wearers)], [])

    def at_once() -> Tensor:
        with activate_adapters(pass_):
            return layer(given)  # type: ignore[no-any-return]  # torch's Any

    def gathered() -> Tensor:
        output = linear(given, layer.weight)
        inner = torch.bmm(given[0].unsqueeze(1), down[numbers])
        output[0] += torch.bmm(inner, up[numbers]).squeeze(1)
        return output

    def apart() -> Tensor:
        output = linear(given, layer.weight)
        for change, mine in zip(changes, own, strict=True):
            inner = linear(given[0].index_select(0, mine), change.lora_a)
            output[0].index_add_(0, mine, inner @ change.lora_b)
        return output

    plain: Callable[[], Tensor] = lambda: linear(given, layer.weight)  # noqa: E731
    return {"none": plain, "all": at_once, "gathered": gathered, "apart": apart}


def cpu_s(way: Callable[[], Tensor]) -> float:
    way()
    began_s = time.process_time()
    for _ in range(REPEATS):
        way()
    return (time.process_time() - began_s) / REPEATS


def measure(rounds: int) -> Iterator[Cost]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        for shape in product(SIZES, ROWS, ADAPTERS, RANKS):
            found = ways(*shape)
            torch.testing.assert_close(found["all"](), found["apart"](), rtol=1e-3, atol=1e-2)
            torch.testing.assert_close(found["all"](), found["gathered"](), rtol=1e-3, atol=1e-2)
            for round in range(rounds):
                for name, way in found.items():
                    yield Cost(*shape, name, round, cpu_s(way))


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    costs = list(measure(arguments.rounds))
    names = ("none", "all", "gathered", "apart")
    rows = []
    for shape in product(SIZES, ROWS, ADAPTERS, RANKS):
        times = [_median(costs, shape, name) for name in names]
        ratios = (f"{time / times[0]:.2f}x" for time in times[1:])
        rows.append((*map(str, shape), f"{times[0] * 1e6:.0f} us", *ratios))
    rig.show(("size", "rows", "adapters", "rank", "layer alone", *names[1:]), rows)
    rig.keep(arguments.json, before, {"costs": [asdict(each) for each in costs]})


def _median(costs: list[Cost], shape: tuple[int, ...], way: str) -> float:
    def is_meant(each: Cost) -> bool:
        return (each.size, each.rows, each.adapters, each.rank, each.way) == (*shape, way)

    return rig.median([each.cpu_s for each in costs if is_meant(each)])


if __name__ == "__main__":
    main()

"""Linear layers whose weights are prepacked for oneDNN.

On a CPU torch multiplies with MKL, which repacks the weights at every call and leaves AVX-512
unused on some CPUs. Prepacked once, oneDNN is twice as fast from a few rows on, and a row gets the
same bits in every batch but the smallest (`benchmarks/products.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

log = logging.getLogger(__name__)

T = TypeVar("T")

_mkldnn: Any = torch.ops.mkldnn
_DTYPES = (torch.float32, torch.bfloat16)
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Of a trial's largest value; another order of summation stays far below."""
_TRIAL_ROWS = 3


class PrepackedLinear(nn.Linear):
    """An `nn.Linear` for inference; only this class can read its `weight`."""

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Linear gives it
        return _product(input, self.weight, self.bias)


def with_prepacked_weights(model: nn.Module, use: Callable[[], T], failure: type[Exception]) -> T:
    """Return what `use` makes of the model with prepacked weights; with plain ones if that fails.

    A model's own code may read the weights of its layers, and prepacked ones cannot be read.

    Raises:
        failure: `use` raises it with plain weights too.
    """
    if not prepack_linear_layers(model):
        return use()
    try:
        return use()
    except failure as fact:
        log.info("products.plain", extra={"why": str(fact)})
        for module in model.modules():
            if isinstance(module, PrepackedLinear):
                module.weight = nn.Parameter(module.weight.to_dense(), requires_grad=False)
                _become(module, nn.Linear)
        return use()


def prepack_linear_layers(model: nn.Module) -> int:
    """Prepack the weights of all suitable linear layers and return their number.

    Embeddings that are tied to a layer keep their own copy.
    """
    backends: Any = torch.backends
    if not backends.mkldnn.is_available() or backends.cpu.get_cpu_capability() != "AVX512":
        return 0
    count = 0
    for layer in list(_plain(model)):
        weight: Tensor = _mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        if _comes_out(layer, weight):
            layer.weight = nn.Parameter(weight, requires_grad=False)
            _become(layer, PrepackedLinear)
            count += 1
    return count


def weight_of(module: nn.Module) -> Tensor | None:
    """Return the weight as the model's files have it; None if the module has not exactly one."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return None
    return weight.to_dense() if isinstance(module, PrepackedLinear) else weight


def _become(layer: nn.Linear, kind: type[nn.Linear]) -> None:
    # Why not a new module: hooks and other modules hold this one.
    layer.__class__ = kind


def _plain(model: nn.Module) -> Iterator[nn.Linear]:
    """Yield layers on a CPU that are not quantized and not sharded."""
    for module in model.modules():
        if type(module) is not nn.Linear or type(module.weight.data) is not Tensor:
            continue
        weight = module.weight
        is_dense = weight.layout == torch.strided and weight.device.type == "cpu"
        if is_dense and weight.dtype in _DTYPES and weight.numel():
            yield module


def _comes_out(layer: nn.Linear, weight: Tensor) -> bool:
    """Return whether oneDNN's product with the prepacked weight is torch's own."""
    rows = torch.linspace(-1, 1, _TRIAL_ROWS * layer.in_features, dtype=layer.weight.dtype)
    rows = rows.view(_TRIAL_ROWS, layer.in_features)
    with torch.inference_mode():
        expected = linear(rows, layer.weight, layer.bias)
        found = _product(rows, weight, layer.bias)
    error = (found - expected).abs().max()
    return bool(error <= _TOLERANCE[layer.weight.dtype] * expected.abs().max())


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = _mkldnn._linear_pointwise.default(rows, weight, bias, "none", [], "")
    return product

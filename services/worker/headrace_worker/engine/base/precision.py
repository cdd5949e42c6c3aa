"""Data types of a model: what each needs, and what it can promise."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from headrace_worker.engine.base.loaded_model import LoadFailed

log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_QUANTIZATIONS = ("none", "int8")
_HAS_TORCHAO = find_spec("torchao") is not None
_CPU_FACTS = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Any of them multiplies bfloat16 in hardware; the last is ARM's."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The type of activations and cache, and how the weights are stored."""

    dtype: str = "float32"
    quantization: str = "none"
    """`int8`: the weights of linear layers as 8-bit integers, with a scale for each output."""

    @property
    def name(self) -> str:
        """As in model cards and digests: `float32`, `bfloat16+int8`."""
        return self.dtype if self.quantization == "none" else f"{self.dtype}+{self.quantization}"

    @property
    def batch_invariant(self) -> bool:
        """Whether rounding, which varies with the batch, stays far below the margins between
        tokens: in plain float32 only."""
        return self.name == "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype]


def require_available(
    precision: Precision, *, on_gpu: bool, has_torchao: bool = _HAS_TORCHAO
) -> None:
    """Check, before anything is read, that this process can compute in this precision.

    A type that is slow on this machine is logged.

    Raises:
        LoadFailed: it cannot; the text says what is missing and what to use instead.
    """
    if precision.dtype not in _DTYPES:
        raise LoadFailed(f"dtype {precision.dtype} is none of {', '.join(_DTYPES)}")
    if precision.quantization not in _QUANTIZATIONS:
        raise LoadFailed(
            f"quantization {precision.quantization} is none of {', '.join(_QUANTIZATIONS)}"
        )
    if precision.quantization == "int8" and not has_torchao:
        raise LoadFailed(
            "quantization int8 needs torchao, which is not installed: pip install 'headrace[int8]'"
        )
    if precision.dtype == "float16" and not on_gpu:
        raise LoadFailed(
            "dtype float16 needs a GPU; on a CPU, where this is to run, it is slower than float32: "
            "take float32 or bfloat16"
        )
    if precision.dtype == "bfloat16" and not on_gpu and not multiplies_bfloat16(_cpu_facts()):
        why = "this CPU has neither AVX512-BF16 nor AMX: bfloat16 halves the memory here, and may"
        why = f"{why} be slower than float32"
        log.warning("precision.slow", extra={"dtype": precision.dtype, "why": why})


def multiplies_bfloat16(cpu_facts: str) -> bool:
    """Return whether a CPU does so in hardware, by its /proc/cpuinfo; true if that is empty."""
    lines = [line for line in cpu_facts.splitlines() if line.startswith(("flags", "Features"))]
    return not lines or any(_BFLOAT16_FLAGS & set(line.split()) for line in lines)


def quantize_to_int8(model: PreTrainedModel) -> None:
    """Store the weights of linear layers in 8 bits; the model computes in its own type.

    Embeddings, norms and experts that are stacked in one tensor stay as they are.

    Raises:
        LoadFailed: torchao cannot be loaded, or there is no linear layer.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except (ImportError, OSError, AttributeError) as error:
        fact = str(error).partition("\n")[0]
        raise LoadFailed(
            f"quantization int8: torchao does not load: {fact}; pip install 'headrace[int8]'"
        ) from error
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise LoadFailed(
            f"quantization int8: {type(model).__name__} has no linear layers to quantize"
        )
    quantize_(model, Int8WeightOnlyConfig())


def _cpu_facts() -> str:
    return _CPU_FACTS.read_text(encoding="utf-8") if _CPU_FACTS.is_file() else ""

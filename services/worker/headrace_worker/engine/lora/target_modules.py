"""Find the modules of a model that adapters may change, by a traced pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True, slots=True)
class TargetModule:
    """A module that adapters may change."""

    module: nn.Module
    inputs: int
    outputs: int
    of_output_embeddings: bool


@dataclass(frozen=True, slots=True)
class TracedRows:
    """How many rows the traced pass has."""

    rows: int
    kept: int
    """Of these, rows whose logits are requested."""


def find_target_modules(
    model: PreTrainedModel, run: Callable[[], object], packed: TracedRows | None
) -> dict[str, TargetModule]:
    """Return the linear modules that are called when `run` runs, by path.

    With `packed` rows, only modules whose output has one row for each. Others are left out: experts
    see some rows only, and a layer whose weights its parent reads is never called.
    """
    head = cast(Any, model).get_output_embeddings()
    seen: dict[nn.Module, tuple[int, int] | None] = {}

    def look(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        fits = bool(arguments) and output.is_contiguous()
        if packed is not None:
            requested = packed.kept if module is head else packed.rows
            fits = fits and output.shape[:-1].numel() == requested
        shape = (arguments[0].shape[-1], output.shape[-1]) if fits else None
        seen[module] = shape if seen.setdefault(module, shape) == shape else None

    layers = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    hooks = [module.register_forward_hook(look) for module in layers.values()]
    try:
        with torch.inference_mode():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    found = {path: (module, seen.get(module)) for path, module in layers.items()}
    return {
        path: TargetModule(module, *shape, of_output_embeddings=module is head)
        for path, (module, shape) in found.items()
        if shape is not None
    }

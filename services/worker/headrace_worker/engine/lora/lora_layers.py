"""Add LoRA changes to the outputs of modules, each row with its own adapter.

A hook on every changed module looks up which adapters the rows of this pass have. Neighbouring rows
with one adapter go through its two matrices; mixed rows go through all of theirs at once, and other
adapters' columns are masked in between.

Why not gather matrices for each row: on CPUs it was slower in every shape. Why not each adapter's
rows apart: as fast for few adapters and a little faster for high ranks, it was much slower where
many small adapters decode together (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from headrace_worker.engine.base.model_runner import Ints
from headrace_worker.engine.lora.adapter_files import LoraWeights

NO_ADAPTER = 0
"""The number of no adapter."""


class AdapterRows:
    """Neighbouring rows of a pass, at least one of which has an adapter."""

    def __init__(self, rows: slice, adapter_ids: Ints) -> None:
        """`adapter_ids` is the number of each row's adapter, or one number for all rows."""
        self.rows = rows
        present = np.unique(adapter_ids)
        self.adapters: tuple[int, ...] = tuple(present[present != NO_ADAPTER].tolist())
        self._adapter_ids = torch.from_numpy(adapter_ids) if len(present) > 1 else None
        self._foreign: dict[tuple[int, ...], Tensor] = {}

    def zero_other_adapters(self, inner: Tensor, widths: tuple[int, ...]) -> Tensor:
        """Zero the columns that are not the row's own adapter's; `widths` are the ranks in
        order."""
        if self._adapter_ids is None:
            return inner
        if widths not in self._foreign:
            owners = torch.tensor(self.adapters).repeat_interleave(torch.tensor(widths))
            foreign = self._adapter_ids[:, None] != owners[None]
            self._foreign[widths] = foreign.to(inner.device)
        # Why not times zero: an overflow in one adapter must not be NaN in others' rows.
        return inner.masked_fill_(self._foreign[widths], 0.0)


@dataclass(frozen=True, slots=True)
class ActiveAdapters:
    """Which rows of a pass have which adapters."""

    rows: Sequence[AdapterRows]
    kept: Sequence[AdapterRows]
    """Of the rows whose logits are requested; only these reach the output embeddings."""


_now: ContextVar[ActiveAdapters | None] = ContextVar("headrace_active_adapters", default=None)


@contextmanager
def activate_adapters(pass_: ActiveAdapters | None) -> Iterator[None]:
    """Set the adapters of this thread's forward pass."""
    token = _now.set(pass_)
    try:
        yield
    finally:
        _now.reset(token)


Joined = tuple[LoraWeights | None, tuple[int, ...]]
"""Several changes concatenated, and the rank of each; None if nothing changes."""


@dataclass(eq=False, slots=True)
class AdaptedModule:
    """The changes of adapters to one module; a forward hook while there are any."""

    of_output_embeddings: bool
    by_adapter: dict[int, LoraWeights] = field(default_factory=dict)
    _joined: tuple[tuple[int, ...], Joined] | None = None
    _hook: Any = None

    def add_adapter(self, module: nn.Module, adapter: int, change: LoraWeights) -> None:
        self.by_adapter[adapter] = change
        self._joined = None
        if self._hook is None:
            self._hook = module.register_forward_hook(self)

    def remove_adapter(self, adapter: int) -> None:
        del self.by_adapter[adapter]
        self._joined = None
        if not self.by_adapter:
            self._hook.remove()
            self._hook = None

    def __call__(self, _: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        now = _now.get()
        if now is None:
            return
        rows = arguments[0].flatten(end_dim=-2)
        # Why a view: the change is added in place, to what the module has just made.
        output = output.view(len(rows), output.shape[-1])
        for span in now.kept if self.of_output_embeddings else now.rows:
            change, widths = self._join(span.adapters)
            if change is not None:
                inner = span.zero_other_adapters(linear(rows[span.rows], change.lora_a), widths)
                output[span.rows].addmm_(inner, change.lora_b)

    def _join(self, adapters: tuple[int, ...]) -> Joined:
        if len(adapters) == 1:
            return _side_by_side([self.by_adapter.get(adapters[0])])
        # The same adapters decode together for many steps.
        if self._joined is None or self._joined[0] != adapters:
            found = [self.by_adapter.get(adapter) for adapter in adapters]
            self._joined = adapters, _side_by_side(found)
        return self._joined[1]


def _side_by_side(changes: Sequence[LoraWeights | None]) -> Joined:
    widths = tuple(0 if change is None else change.rank for change in changes)
    there = [change for change in changes if change is not None]
    if len(there) < 2:
        return (there[0] if there else None), widths
    down = torch.cat([change.lora_a for change in there])
    return LoraWeights(down, torch.cat([change.lora_b for change in there])), widths

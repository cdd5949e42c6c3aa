"""Decode steps as CUDA graphs, captured once for each padded batch size.

All that a step reads is in buffers on the device: the last token of every slot, its sampling
parameters, and for each row its slot, position and block table. So a step can be launched before
the tokens of the previous one are read. On a CPU the same steps run uncaptured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.base.model_runner import Ints
from headrace_worker.engine.gpu.device_sampling import SamplingKind, sample_on_device
from headrace_worker.engine.kvcache.paged_cache import PagedKvCache
from headrace_worker.engine.kvcache.paged_rows import DeviceDecodeRows
from headrace_worker.engine.model.packed_attention import StepAttention, attending
from headrace_worker.engine.sampling.host_sampling import SamplingColumns


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Inputs and outputs of a step of one size, `(rows,)` but for the tables."""

    slots: Tensor
    positions: Tensor
    indices: Tensor
    tables: Tensor
    tokens: Tensor
    finite: Tensor


class InFlightStep:
    """A launched step; `read` waits for it."""

    def __init__(self, rows: int, tokens: Tensor, finite: Tensor) -> None:
        self._rows, self._tokens, self._finite = rows, tokens, finite
        self._copied: torch.cuda.Event | None = None
        if torch.cuda.is_available() and tokens.is_pinned():
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # theirs
            self._copied.record()

    def read(self) -> tuple[list[int], list[bool]]:
        """Return the tokens, and whether the logits they were sampled from were finite."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tokens[: self._rows].tolist(), self._finite[: self._rows].tolist()


class DecodeGraphs:
    """The decode steps of one packed model over the paged cache."""

    def __init__(self, model: PreTrainedModel, cache: PagedKvCache) -> None:
        self._model, self._cache = model, cache
        self._device = model.device
        # One more than there are: padding belongs to it, and its tokens are discarded.
        slots = cache.slots + 1
        self._padding_slot = cache.slots
        self._last_tokens = self._zeros(slots, torch.int64)
        self.sampling = SamplingColumns.neutral(slots, self._device)
        """By slot, on the device."""
        self._buffers: dict[int, _Buffers] = {}
        self._steps: dict[tuple[int, SamplingKind], Callable[[], None]] = {}
        self._pool: Any = None
        """Of memory, one for all graphs: no two run at once."""

    def set_last_tokens(self, slots: Ints, token_ids: Ints) -> None:
        """Set the last tokens of slots that were sampled elsewhere."""
        at = torch.from_numpy(slots).to(self._device)
        self._last_tokens[at] = torch.from_numpy(token_ids).to(self._device)

    def prepare(self) -> None:
        """Capture the steps of all sizes now rather than at first use.

        Raises:
            RuntimeError: the pass cannot be captured, because it reads values on its way.
        """
        with torch.inference_mode():
            for size in reversed(sizes(self._cache.slots)):
                for kind in SamplingKind:
                    self._step(size, kind)

    def launch(
        self, slots: Ints, positions: Ints, indices: Ints, kind: SamplingKind
    ) -> InFlightStep:
        """Start a step of rows with these slots, positions and output indices.

        Each slot's last token is fed, and the sampled token becomes its last. Later launches run
        later, so nothing is overwritten too early.
        """
        rows = len(slots)
        size = next(size for size in sizes(self._cache.slots) if size >= rows)
        buffers = self._buffers_of(size)
        padding = size - rows
        _fill(buffers.slots, np.pad(slots, (0, padding), constant_values=self._padding_slot))
        _fill(buffers.positions, np.pad(positions, (0, padding)))
        _fill(buffers.indices, np.pad(indices, (0, padding)))
        # Padding writes to the null block.
        _fill(buffers.tables, np.pad(self._cache.block_tables(slots), ((0, padding), (0, 0))))
        self._step(size, kind)()
        return InFlightStep(rows, _to_host(buffers.tokens), _to_host(buffers.finite))

    def _buffers_of(self, size: int) -> _Buffers:
        if size not in self._buffers:
            blocks = self._cache.block_tables(np.arange(1)).shape[1]
            slots, positions, indices, tokens = (self._zeros(size, torch.int64) for _ in range(4))
            slots.fill_(self._padding_slot)
            tables, finite = self._zeros((size, blocks), torch.int64), self._zeros(size, torch.bool)
            self._buffers[size] = _Buffers(slots, positions, indices, tables, tokens, finite)
        return self._buffers[size]

    def _step(self, size: int, kind: SamplingKind) -> Callable[[], None]:
        if (size, kind) not in self._steps:
            buffers = self._buffers_of(size)
            if self._device.type == "cuda":
                self._steps[size, kind] = self._captured(buffers, kind)
            else:
                self._steps[size, kind] = partial(self._run, buffers, kind)
        return self._steps[size, kind]

    def _captured(self, buffers: _Buffers, kind: SamplingKind) -> Callable[[], None]:
        """Capture one step, after a run that allocates what only a first run allocates.

        The contents of the buffers are kept: a launch has filled them.
        """
        inputs = (buffers.slots, buffers.positions, buffers.tables)
        filled = [tensor.clone() for tensor in inputs]
        for tensor, padding in zip(inputs, (self._padding_slot, 0, 0), strict=True):
            tensor.fill_(padding)
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # theirs
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            self._run(buffers, kind)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._run(buffers, kind)
        self._pool = graph.pool()
        for tensor, before in zip(inputs, filled, strict=True):
            tensor.copy_(before)
        return graph.replay

    def _run(self, buffers: _Buffers, kind: SamplingKind) -> None:
        rows = DeviceDecodeRows(buffers.tables, buffers.positions, self._cache.device_attention)
        attention = StepAttention(self._cache, [rows])
        with attending(attention):
            output = self._model(
                input_ids=self._last_tokens[buffers.slots][None],
                position_ids=buffers.positions[None],
                use_cache=False,
            )
        logits = output.logits[0].float()
        own = self.sampling[buffers.slots]
        tokens, finite = sample_on_device(logits, own, buffers.indices, kind)
        self._last_tokens[buffers.slots] = tokens
        buffers.tokens.copy_(tokens)
        buffers.finite.copy_(finite)

    def _zeros(self, shape: int | tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)


def sizes(slots: int) -> list[int]:
    """Return the padded batch sizes: powers of two up to one that holds all slots."""
    return [1 << power for power in range((slots - 1).bit_length() + 1)]


def _fill(buffer: Tensor, values: Ints) -> None:
    """Copy to the device without waiting."""
    source = torch.from_numpy(values)
    if buffer.is_cuda:
        # The allocator keeps pinned memory until what reads it has run.
        source = source.pin_memory()
    buffer.copy_(source, non_blocking=True)


def _to_host(buffer: Tensor) -> Tensor:
    if not buffer.is_cuda:
        return buffer.clone()
    host = torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=True)
    return host.copy_(buffer, non_blocking=True)

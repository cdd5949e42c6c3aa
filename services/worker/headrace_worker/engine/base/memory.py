"""How much memory the keys and values may take."""

from __future__ import annotations

import mmap
from math import prod

import torch
from torch import Tensor

from headrace_worker.base.machine import this_machine

_UTILIZATION = {"cpu": 0.5, "cuda": 0.9}
"""Of a machine half, for others live there too; of a GPU what passes and drivers leave."""


def cache_budget(device: torch.device, *, utilization: float | None, weights: int) -> int:
    """Bytes for keys and values on a device that holds `weights` bytes of their model already."""
    if utilization is None:
        utilization = _UTILIZATION[device.type]
    if device.type == "cpu":
        machine = this_machine()
        return share(
            machine.memory_bytes, machine.free_bytes, taken=weights, utilization=utilization
        )
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    # Whoever took what is taken: there is no other room on this device.
    return share(total, free, taken=total - free, utilization=utilization)


def share(total: int, free: int, *, taken: int, utilization: float) -> int:
    """What is left of a share of `total` bytes of which `taken` are taken, and is free; from 0."""
    return max(0, min(int(total * utilization) - taken, free))


def lazily_zeroed(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros from the system that take memory page by page, as they are written.

    Raises:
        MemoryError: the address space does not take them.
    """
    # Why not torch.zeros: it writes the zeros, so memory is committed at once.
    size = prod(shape) * dtype.itemsize
    try:
        octets = mmap.mmap(-1, size)
    except OSError as error:
        raise MemoryError(f"{size} bytes of address space: {error}") from error
    # Why not numpy's: it asks for huge pages, each of which commits room for many tokens of
    # other heads and slots; short contexts then take sixteen times their memory.
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux alone has them
        octets.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(octets, dtype=dtype).view(shape)

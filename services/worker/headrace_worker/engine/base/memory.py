"""Memory for the key-value cache."""

from __future__ import annotations

import mmap
from math import prod

import torch
from torch import Tensor

from headrace_worker.base.machine import this_machine

_UTILIZATION = {"cpu": 0.5, "cuda": 0.9}
"""Half of a machine, which runs other processes too; of a GPU what passes and drivers leave."""


def cache_budget(device: torch.device, *, utilization: float | None, weights: int) -> int:
    """Return the bytes for the cache on a device that holds `weights` bytes of the model
    already."""
    if utilization is None:
        utilization = _UTILIZATION[device.type]
    if device.type == "cpu":
        machine = this_machine()
        return share(
            machine.memory_bytes, machine.free_bytes, taken=weights, utilization=utilization
        )
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    # Whichever process took it: the device has no other memory.
    return share(total, free, taken=total - free, utilization=utilization)


def share(total: int, free: int, *, taken: int, utilization: float) -> int:
    """Return what a share of `total` bytes leaves beyond the `taken` ones, at most `free`, at least
    0."""
    return max(0, min(int(total * utilization) - taken, free))


def lazily_zeroed(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros whose memory is committed page by page, as they are written.

    Raises:
        MemoryError: the address space is too small.
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

"""Features of a GPU, where there is one: Triton kernels and CUDA graphs."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

from headrace_worker.engine.gpu.decode_graphs import DecodeGraphs
from headrace_worker.engine.kvcache.paged_cache import PagedKvCache
from headrace_worker.engine.kvcache.paged_rows import DeviceAttention, dense_decode_attention

log = logging.getLogger(__name__)


def select_device(requested: str) -> torch.device | None:
    """Return `cpu` or `cuda`, with `auto` the best there is; None without a requested GPU."""
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", 0) if torch.cuda.is_available() else None


def device_attention(device: torch.device) -> DeviceAttention | None:
    """Return the attention of decode rows on this device; None on a CPU."""
    if device.type == "cpu":
        return None
    if find_spec("triton") is None:
        log.warning("gpu.no_triton", extra={"why": "decode attention gathers whole contexts"})
        return dense_decode_attention
    # Why here: Triton is a package of its own, and only where there may be a GPU.
    from headrace_worker.engine.gpu.paged_kernel import paged_decode_attention

    return paged_decode_attention


def decode_graphs(model: PreTrainedModel, cache: PagedKvCache) -> DecodeGraphs | None:
    """Return the model's decode steps, captured where possible; None if they cannot be launched
    ahead."""
    graphs = DecodeGraphs(model, cache)
    if model.device.type == "cpu":
        return graphs
    try:
        graphs.prepare()
    except RuntimeError as error:
        # As with experts that are chosen by looking at values: it runs step by step then.
        log.warning("gpu.not_captured", extra={"why": str(error).splitlines()[0]})
        return None
    return graphs

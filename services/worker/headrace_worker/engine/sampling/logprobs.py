"""Log probabilities of sampled and of prompt tokens, for rows that want them.

They are of the model's own logits, before penalties, masks and temperature. Every sum and every
top-k runs over one row, so no row depends on the others.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.logprobs import LEAST, Logprobs
from headrace_worker.engine.base.model_runner import Ints, PrefillChunk

Floats = NDArray[np.float32]


def row_logprobs(logits: Tensor, token_ids: Ints, widths: Ints) -> list[Logprobs]:
    """Return each row of `(rows, vocabulary)` as a run of one, with the `widths[row]` likeliest."""
    runs: list[Logprobs] = [Logprobs()] * len(widths)
    # Why not the greatest width for all: which of equal logits come in would depend on it.
    for width in np.unique(widths):
        rows = (widths == width).nonzero()[0]
        some = logits if len(rows) == len(widths) else logits[torch.from_numpy(rows)]
        own, top_ids, top = _columns(some, token_ids[rows], int(width))
        for row, *columns in zip(rows.tolist(), own, top_ids, top, strict=True):
            runs[row] = _run(*columns)
    return runs


def run_logprobs(logits: Tensor, token_ids: Ints, width: int) -> Logprobs:
    """Return all rows of `(rows, vocabulary)` as one run."""
    return _run(*_columns(logits, token_ids, width))


def split_logits(
    logits: Tensor, decoding: int, prefills: Sequence[PrefillChunk]
) -> tuple[Tensor, list[tuple[PrefillChunk, Tensor]]]:
    """Split the logits of a pass into rows that are sampled and rows of prompt logprobs.

    The last token of a prompt is in both.
    """
    if not any(prefill.all_logits for prefill in prefills):
        return logits, []
    choosing, row = list(range(decoding)), decoding
    prompt_rows = []
    for prefill in prefills:
        if prefill.all_logits:
            prompt_rows.append((prefill, logits[row : row + prefill.num_logits]))
        row += prefill.num_logits
        if prefill.is_last_chunk:
            choosing.append(row - 1)
    return logits[choosing], prompt_rows


def _columns(
    logits: Tensor, token_ids: Ints, width: int
) -> tuple[Floats, NDArray[np.uint32], Floats]:
    norms = logits.logsumexp(dim=-1, keepdim=True)
    own = logits.gather(1, torch.from_numpy(token_ids)[:, None]) - norms
    values, top_ids = logits.topk(min(width, logits.shape[-1]), dim=-1)
    return (_bounded(own[:, 0]), top_ids.numpy().astype(np.uint32), _bounded(values - norms))


def _bounded(logprobs: Tensor) -> Floats:
    bounded: Floats = torch.nan_to_num(logprobs, nan=LEAST).clamp_(LEAST, 0).numpy()
    return bounded


def _run(own: Floats, top_ids: NDArray[np.uint32], top: Floats) -> Logprobs:
    return Logprobs(
        array("f", own.tobytes()), array("I", top_ids.tobytes()), array("f", top.tobytes())
    )

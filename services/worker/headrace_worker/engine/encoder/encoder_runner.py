"""Forward passes of a model that makes vectors: rows padded on the right, then the head."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headrace_worker.engine.base import interface
from headrace_worker.engine.base.interface import SamplingParameters
from headrace_worker.engine.encoder.batching import BatchMode
from headrace_worker.engine.files.length_thresholds import threshold_positions

_NOTHING_TO_SAMPLE = SamplingParameters(max_tokens=0)
_TRIAL_LENGTHS = (5, 9, 12, 9)
_LONGEST_TRIAL = 512
"""Longer thresholds are not probed: it would take seconds."""
_TOLERANCE = {torch.float32: 1e-4}
_COARSE = 5e-2
"""Of half-precision types, whose rounding adds up over the whole network."""


class EncoderCheckFailed(Exception):
    """The model gives no finite vectors; the text names what it gives."""


class EncoderModelRunner:
    """A model, and the head that turns its output into vectors `(rows, dimensions)`."""

    def __init__(
        self,
        model: PreTrainedModel,
        head: nn.Module,
        *,
        output: str,
        pad_token_id: int,
        has_token_types: bool,
    ) -> None:
        """`output` names the field of the model's output for the head; `has_token_types`:
        whether the tokenizer distinguishes the texts of a pair."""
        self.model: Any = model
        self._head, self._output, self._pad_token_id = head, output, pad_token_id
        self._has_types = (
            has_token_types and "token_type_ids" in inspect.signature(model.forward).parameters
        )

    def run(self, rows: Sequence[interface.Sequence]) -> Tensor:
        """Return vectors in float32, a row for each sequence."""
        longest = max(len(row.prompt_ids) for row in rows)
        ids = torch.full((len(rows), longest), self._pad_token_id)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for place, row in enumerate(rows):
            length = len(row.prompt_ids)
            ids[place, :length] = torch.tensor(row.prompt_ids)
            mask[place, :length] = 1
            if row.second_begins:
                types[place, row.second_begins : length] = 1
        with_types = {"token_type_ids": types} if self._has_types else {}
        output = self.model(input_ids=ids, attention_mask=mask, return_dict=True, **with_types)
        return cast(Tensor, self._head(getattr(output, self._output), mask)).float()

    def batch_mode(self, vocabulary_size: int, context_tokens: int) -> tuple[BatchMode, int]:
        """Probe which batches the model computes correctly, and its number of dimensions.

        Raises:
            EncoderCheckFailed: not even one row alone gives a finite vector.
        """
        with torch.inference_mode():
            rows = _trial_rows(
                vocabulary_size, self._trial_lengths(context_tokens), self._pad_token_id
            )
            alone = torch.cat([self._alone(row) for row in rows])
            if alone.ndim != 2 or not alone.isfinite().all():
                raise EncoderCheckFailed(
                    f"a trial gave {tuple(alone.shape)} values, not all finite"
                )
            equal = [row for row in rows if len(row.prompt_ids) == len(rows[1].prompt_ids)]
            for batch_mode, some in ((BatchMode.PADDED, rows), (BatchMode.SAME_LENGTH, equal)):
                if self._agrees(some, alone[[row.sequence_id for row in some]]):
                    return batch_mode, alone.shape[1]
        return BatchMode.SINGLE, alone.shape[1]

    def _trial_lengths(self, context_tokens: int) -> list[int]:
        """Return short lengths, and lengths that cross the thresholds of the configuration."""
        bound = min(context_tokens, _LONGEST_TRIAL)
        config = self.model.config.get_text_config()
        found = threshold_positions(config, first=max(_TRIAL_LENGTHS), context_tokens=bound)
        lengths = (*_TRIAL_LENGTHS, *(threshold + 2 for threshold in found))
        return [min(length, context_tokens) for length in lengths]

    def _alone(self, row: interface.Sequence) -> Tensor:
        try:
            return self.run([row])
        except Exception as error:
            raise EncoderCheckFailed(f"a trial failed: {type(error).__name__}: {error}") from error

    def _agrees(self, rows: Sequence[interface.Sequence], alone: Tensor) -> bool:
        tolerance = _TOLERANCE.get(self.model.dtype, _COARSE)
        try:
            together = self.run(rows)
        except (RuntimeError, ValueError, IndexError):
            return False  # it takes no batches, or not with padding
        scale = float(alone.abs().max())
        return float((together - alone).abs().max()) <= tolerance * max(scale, 1e-6)


def _trial_rows(
    vocabulary_size: int, lengths: Sequence[int], pad_token_id: int
) -> list[interface.Sequence]:
    generator = torch.Generator().manual_seed(3)
    rows = []
    for number, length in enumerate(lengths):
        drawn = torch.randint(vocabulary_size, (length,), generator=generator)
        # Why: some models count positions from tokens that are no padding.
        drawn[drawn == pad_token_id] = (pad_token_id + 1) % vocabulary_size
        ids = tuple(drawn.tolist())
        rows.append(interface.Sequence(number, ids, (), _NOTHING_TO_SAMPLE, seed=0))
    return rows

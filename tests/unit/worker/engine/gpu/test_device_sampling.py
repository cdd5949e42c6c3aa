"""What is drawn on a device is what the host would draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_worker.engine.base.interface import SamplingParameters
from headrace_worker.engine.gpu.device_sampling import (
    SamplingKind,
    exponentials,
    noise_bits,
    sample_on_device,
)
from headrace_worker.engine.sampling import noise
from headrace_worker.engine.sampling.host_sampling import (
    SamplingColumns,
    argmax,
    sample,
)
from helpers.sampling_columns import columns_of

WORDS = st.integers(0, 2**64 - 1)


@settings(max_examples=100, deadline=None)
@given(seeds=st.lists(WORDS, min_size=1, max_size=5), index=st.integers(0, 2**40))
def test_the_hash_is_that_of_the_host_bit_for_bit(seeds: list[int], index: int) -> None:
    keys = np.array([noise.seed_key(seed) for seed in seeds], dtype=np.uint64)
    indices = np.full(len(seeds), index)
    there = noise_bits(torch.from_numpy(keys.view(np.int64)), torch.from_numpy(indices), 50)
    here = noise.noise_bits(keys, indices.astype(np.uint64), np.arange(50, dtype=np.uint64))
    assert (there.numpy().view(np.uint64) == here).all()
    np.testing.assert_allclose(exponentials(there).numpy(), noise.exponentials(here), rtol=1e-14)


def random_rows(
    rows: int, seed: int, **columns: Any
) -> tuple[torch.Tensor, SamplingColumns, torch.Tensor]:
    """Logits of several shapes, with parameters that are the same for all rows."""
    generator = np.random.default_rng(seed)
    spread = generator.choice([0.0, 0.5, 3.0, 20.0], size=(rows, 1))
    logits = (generator.standard_normal((rows, 300)) * spread).round(1).astype(np.float32)
    keys = generator.integers(-(2**63), 2**63, rows)
    one = SamplingParameters(max_tokens=1, **columns)
    parameters = columns_of([one] * rows)
    parameters.seed_keys.copy_(torch.from_numpy(keys))
    return torch.from_numpy(logits), parameters, torch.arange(rows)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"temperature": 0.3},
        {"min_p": 0.05},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 1000},
        {"top_p": 0.9},
        {"top_p": 0.001},
        {"top_k": 20, "top_p": 0.7, "min_p": 0.02, "temperature": 1.7},
        {"typical_p": 0.4},
        {"typical_p": 0.9, "top_k": 20, "top_p": 0.7, "temperature": 1.7},
    ],
    ids=str,
)
def test_every_row_gets_the_token_that_the_host_would_give_it(columns: dict[str, float]) -> None:
    rows = 200
    logits, parameters, indices = random_rows(rows, 3, **columns)
    tokens, finite = sample_on_device(logits, parameters, indices, SamplingKind.TYPICAL)
    assert finite.all()
    assert tokens.tolist() == sample(logits, parameters, indices.numpy()).tolist()
    if not {"top_k", "top_p", "typical_p"} & columns.keys():
        assert (
            sample_on_device(logits, parameters, indices, SamplingKind.ALL_TOKENS)[0].tolist()
            == tokens.tolist()
        )


@pytest.mark.parametrize("kind", SamplingKind)
def test_without_temperature_the_highest_wins_and_of_several_the_first(kind: SamplingKind) -> None:
    logits, parameters, indices = random_rows(200, 4, temperature=0.0)
    assert (
        sample_on_device(logits, parameters, indices, kind)[0].tolist()
        == argmax(logits)[0].tolist()
    )


@pytest.mark.parametrize("kind", SamplingKind)
def test_logits_that_are_not_finite_are_reported(kind: SamplingKind) -> None:
    logits, parameters, indices = random_rows(4, 5)
    logits[1, 7], logits[2, 9], logits[3, 11] = torch.nan, torch.inf, -torch.inf
    assert sample_on_device(logits, parameters, indices, kind)[1].tolist() == [
        True,
        False,
        False,
        True,
    ]

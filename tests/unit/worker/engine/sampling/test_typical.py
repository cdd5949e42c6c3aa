"""Typical sampling, compared with transformers' own."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TypicalLogitsWarper

from headrace_worker.engine.sampling.typical import keep_typical


def weights_of(logits: torch.Tensor) -> torch.Tensor:
    return (logits - logits.amax(dim=-1, keepdim=True)).exp()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.5, 6), st.floats(0.05, 0.99))
def test_the_tokens_are_kept_that_transformers_keeps(seed: int, spread: float, mass: float) -> None:
    logits = torch.randn(3, 60, generator=torch.Generator().manual_seed(seed)) * spread
    expected = TypicalLogitsWarper(mass)(torch.empty(0), logits.clone()).isfinite()
    kept = keep_typical(weights_of(logits), torch.full((3,), mass)) > 0
    assert torch.equal(kept, expected)


def test_each_row_is_cut_by_its_own_mass_and_1_cuts_nothing() -> None:
    weights = torch.tensor([[0.5, 0.25, 0.125, 0.125]] * 3)
    kept = keep_typical(weights, torch.tensor([0.2, 0.6, 1.0]))
    assert (kept > 0).tolist() == [
        [False, True, False, False],
        [True, True, False, False],
        [True, True, True, True],
    ]


def test_tokens_that_are_cut_already_change_nothing() -> None:
    weights = weights_of(torch.randn(1, 40, generator=torch.Generator().manual_seed(1)) * 2)
    padded = torch.cat([weights, torch.zeros(1, 25)], dim=-1)
    mass = torch.tensor([0.4])
    assert torch.equal(keep_typical(padded, mass)[:, :40], keep_typical(weights, mass))

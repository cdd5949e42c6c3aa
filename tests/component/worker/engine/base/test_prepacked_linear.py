"""Prepacked weights multiply as torch does, and only where no other code reads them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear

from headrace_worker.engine.base import prepacked_linear
from headrace_worker.engine.base.prepacked_linear import (
    PrepackedLinear,
    prepack_linear_layers,
    weight_of,
    with_prepacked_weights,
)
from headrace_worker.engine.loading.builder import EngineBuilder
from helpers.tiny_models import EOS, generated, random_model
from helpers.worker_settings import worker_settings

SHAPE = worker_settings(max_slots=2, context_tokens=64, prefill_chunk_tokens=8)


@pytest.fixture(autouse=True)
def any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right does not depend on whether this CPU gains by it."""
    backends: Any = torch.backends
    assert backends.mkldnn.is_available()
    monkeypatch.setattr(backends.cpu, "get_cpu_capability", lambda: "AVX512")


@given(
    rows=st.integers(0, 70),
    inputs=st.integers(1, 130),
    outputs=st.integers(1, 130),
    bias=st.booleans(),
    dtype=st.sampled_from((torch.float32, torch.bfloat16)),
    strided=st.booleans(),
)
def test_products_are_torchs_own_in_every_shape(
    rows: int, inputs: int, outputs: int, bias: bool, dtype: torch.dtype, strided: bool
) -> None:
    layer = nn.Sequential(nn.Linear(inputs, outputs, bias=bias, dtype=dtype))
    given_rows = torch.randn(2, rows * (1 + strided), inputs).to(dtype)[:, :: 1 + strided]
    with torch.inference_mode():
        expected = layer(given_rows)
        assert prepack_linear_layers(layer) == 1
        found = layer(given_rows)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_a_head_that_is_tied_to_the_embeddings_leaves_them_readable() -> None:
    model = random_model("llama", tie_word_embeddings=True)
    embeddings = cast(Tensor, model.get_input_embeddings().weight)
    parameters = model.num_parameters()
    assert prepack_linear_layers(model) > 0
    head = cast(Any, model).get_output_embeddings()
    assert isinstance(head, PrepackedLinear)
    assert model.get_input_embeddings().weight is embeddings
    restored = weight_of(head)
    assert restored is not None
    assert torch.equal(restored, embeddings)
    assert model.num_parameters() == parameters + embeddings.numel()


def test_layers_that_are_no_plain_ones_stay_as_they_are() -> None:
    class Own(nn.Linear):
        pass

    attention = nn.MultiheadAttention(8, 2)
    double = nn.Linear(8, 8, dtype=torch.float64)
    model = nn.ModuleList([Own(8, 8), attention, double, nn.Linear(8, 8)])
    assert prepack_linear_layers(model) == 1
    assert prepack_linear_layers(model) == 0, "what is laid out is left alone"


def test_a_product_that_comes_out_otherwise_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(rows, weight.to_dense(), bias) * 1.01

    monkeypatch.setattr(prepacked_linear, "_product", wrong)
    model = nn.Sequential(nn.Linear(8, 8))
    assert prepack_linear_layers(model) == 0
    assert type(model[0]) is nn.Linear


def test_engines_are_built_over_prepacked_weights() -> None:
    model = random_model("llama")
    engine = EngineBuilder(model, SHAPE, (EOS,)).build()
    assert engine.facts.name == "packed"
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert all(isinstance(layer, PrepackedLinear) for layer in layers)


def test_a_model_that_reads_its_weights_is_run_with_plain_ones() -> None:
    model = random_model("mamba")
    engine = EngineBuilder(model, SHAPE, (EOS,)).build()
    assert engine.facts.name == "stepwise"
    assert not any(isinstance(module, PrepackedLinear) for module in model.modules())
    assert generated(model, (1, 2, 3), 5)


def test_what_fails_with_plain_weights_too_fails() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    tried = []

    def use() -> None:
        tried.append(type(model[0]))
        raise ValueError("it fails")

    with pytest.raises(ValueError, match="it fails"):
        with_prepacked_weights(model, use, ValueError)
    assert tried == [PrepackedLinear, nn.Linear]

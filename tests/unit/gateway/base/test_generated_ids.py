"""Ids that name the lane of their request."""

from __future__ import annotations

import doctest

import pytest

import headrace_gateway.base.generated_ids
from headrace.errors import InvalidRequest
from headrace.model_names import lane_id
from headrace.request_keys import candidate_models
from headrace_gateway.base.generated_ids import draw_id, with_lane

DRAWN = draw_id(20 * "a")
MODELS = ["valley", "Qwen/Qwen3-0.6B", "模型"]


def test_the_examples_hold() -> None:
    assert doctest.testmod(headrace_gateway.base.generated_ids).failed == 0


@pytest.mark.parametrize("model", MODELS)
def test_a_generated_id_names_one_leader(model: str) -> None:
    own = with_lane(model, DRAWN)
    assert own == f"req_00{lane_id(model)[:6]}{20 * 'a'}"
    assert len(own) == 32
    assert candidate_models(own, MODELS) == [model]
    assert candidate_models(f"{own}-1", MODELS) == [model]
    assert candidate_models(f"{own}-resent-17", MODELS) == [model]
    assert candidate_models(f"{own}-1-resent-17", MODELS) == [model]


@pytest.mark.parametrize(
    "own", ["night-17", "req_1", 32 * "0", f"req_mj75hu{22 * 'a'}", f"x{DRAWN}", f"{DRAWN}x"]
)
def test_an_id_of_the_callers_own_is_kept_and_may_be_at_any_leader(own: str) -> None:
    assert with_lane("valley", own) == own
    assert candidate_models(own, MODELS) == MODELS


def test_an_id_of_an_unknown_lane_may_be_at_any_leader() -> None:
    assert candidate_models(with_lane("gone", DRAWN), MODELS) == MODELS
    assert candidate_models(DRAWN, MODELS) == MODELS


def test_a_generated_id_is_accepted_again_for_its_own_model_only() -> None:
    own = with_lane("valley", DRAWN)
    assert with_lane("valley", own) == own
    with pytest.raises(InvalidRequest, match="another model"):
        with_lane("模型", own)

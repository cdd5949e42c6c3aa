"""Ids that tell in whose lanes a request is."""

from __future__ import annotations

import doctest

import pytest

import headrace_gateway.base.generated_ids
from headrace.errors import InvalidRequest
from headrace.model_names import lane_id
from headrace_gateway.base.generated_ids import candidate_models, draw_id, with_lane

DRAWN = draw_id(20 * "a")
MODELS = ["valley", "Qwen/Qwen3-0.6B", "模型"]


def test_the_examples_hold() -> None:
    assert doctest.testmod(headrace_gateway.base.generated_ids).failed == 0


@pytest.mark.parametrize("model", MODELS)
def test_for_an_id_of_ours_one_leader_is_asked(model: str) -> None:
    own = with_lane(model, DRAWN)
    assert own == f"req_00{lane_id(model)[:6]}{20 * 'a'}"
    assert len(own) == 32
    assert candidate_models(own, MODELS) == [model]
    assert candidate_models(f"{own}-1", MODELS) == [model]


@pytest.mark.parametrize(
    "own", ["night-17", "req_1", 32 * "0", f"req_mj75hu{22 * 'a'}", f"x{DRAWN}", f"{DRAWN}x"]
)
def test_an_id_of_the_callers_own_stays_and_every_leader_is_asked_for_it(own: str) -> None:
    assert with_lane("valley", own) == own
    assert candidate_models(own, MODELS) == MODELS


def test_where_no_known_model_has_the_lane_every_leader_is_asked() -> None:
    assert candidate_models(with_lane("gone", DRAWN), MODELS) == MODELS
    assert candidate_models(DRAWN, MODELS) == MODELS


def test_an_id_that_was_given_out_is_taken_again_for_its_own_model_alone() -> None:
    own = with_lane("valley", DRAWN)
    assert with_lane("valley", own) == own
    with pytest.raises(InvalidRequest, match="another model"):
        with_lane("模型", own)

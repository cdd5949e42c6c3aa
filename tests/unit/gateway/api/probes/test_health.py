"""Whether a gateway can admit requests."""

from __future__ import annotations

import json
from dataclasses import replace

from headrace_gateway.api.probes.health import Health, ModelState

WELL = Health(
    leaving=False,
    broker_connected=True,
    models={"asleep": ModelState.NO_WORKER, "valley": ModelState.READY},
    leader_age_s=0.3,
    window_s=15.0,
)

LOADING = "no model can be served yet: what is configured is being loaded"


def test_it_can_while_its_broker_and_a_scheduler_are_there_whatever_the_workers_do() -> None:
    assert WELL.problem is None
    assert replace(WELL, models={"valley": ModelState.NO_WORKER}).problem is None
    assert json.loads(WELL.body(lambda _: True)) == {
        "status": "ok",
        "models": {"asleep": "no_worker", "valley": "ready"},
    }


def test_only_models_that_the_caller_may_use_are_shown() -> None:
    assert json.loads(WELL.body(lambda model: model == "valley"))["models"] == {"valley": "ready"}
    assert json.loads(WELL.body(lambda _: False)) == {"status": "ok", "models": {}}


def test_a_gateway_that_cannot_check_callers_yet_is_not_healthy() -> None:
    assert replace(WELL, access_problem="no tables").problem == "no tables"


def test_without_any_model_no_scheduler_has_to_report() -> None:
    assert replace(WELL, models={}, leader_age_s=None).problem is None


def test_nothing_is_served_before_the_first_model_though_requests_are_answered() -> None:
    first = replace(WELL, models={}, unannounced=frozenset({"valley"}), leader_age_s=None)
    assert (first.problem, WELL.not_serving) == (None, None)
    assert first.not_serving == LOADING
    body = json.loads(first.body(lambda _: True))
    assert (body["status"], body["models"]) == ("unavailable", {"valley": "loading"})
    assert json.loads(first.body(lambda _: False))["models"] == {}
    two = replace(WELL, models={"a": ModelState.LOADING}, unannounced=frozenset({"b"}))
    assert two.not_serving == LOADING
    assert replace(WELL, unannounced=frozenset({"b"})).not_serving is None
    assert "none is configured" in str(replace(first, unannounced=frozenset()).not_serving)


def test_a_model_that_cannot_be_read_is_not_being_loaded() -> None:
    broken = replace(WELL, models={}, unannounced=frozenset({"a"}), unusable={"a": "bad", "b": ""})
    assert broken.problem is None
    assert "a model's card or tokenizer cannot be read" in str(broken.not_serving)
    body = json.loads(broken.body(lambda _: True))
    assert body["models"] == {"a": "unusable", "b": "unusable"}
    assert replace(broken, unannounced=frozenset({"a", "c"})).not_serving == LOADING
    assert replace(broken, models=WELL.models).not_serving is None


def test_health_names_what_is_missing() -> None:
    assert replace(WELL, leaving=True).problem == "leaving"
    assert replace(WELL, broker_connected=False).problem == "out of reach of NATS"
    assert "reading the models" in str(replace(WELL, starting=True).problem)
    full = replace(WELL, broker_fault="its disk is full")
    assert full.problem == "the broker cannot store requests: its disk is full"
    assert replace(WELL, leader_age_s=None).problem == "no scheduler has reported yet"
    silent = replace(WELL, leader_age_s=15.4)
    assert silent.problem == "no scheduler has reported for 15 s"
    assert json.loads(silent.body(lambda _: True))["status"] == "unavailable"
    assert json.loads(silent.body(lambda _: True))["reason"] == silent.problem


def test_the_age_of_the_last_token_is_reported_and_decides_nothing() -> None:
    assert WELL.details() == (
        "no token has come yet",
        "model asleep: no_worker",
        "model valley: ready",
    )
    old = replace(WELL, token_age_s=3600.0)
    assert old.problem is None
    assert old.details()[0] == "last token 3600 s ago"

"""What a mesh consists of."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.mesh.failures import BadOption
from headrace.mesh.plan import (
    DEFAULT_MODEL,
    EngineKind,
    MeshOptions,
    ModelSource,
    Role,
    ServicePlan,
    parse_model,
    parse_setting,
    services,
)

HOME = Path("/somewhere")


def planned(options: MeshOptions) -> dict[str, ServicePlan]:
    return {each.name: each for each in services(options)}


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("default", "default", "valley"),
        ("org/My_Model-1.5B", "org/My_Model-1.5B", "my-model-1-5b"),
        ("/models/llama/", "/models/llama/", "llama"),
        ("/models/llama=small", "/models/llama", "small"),
    ],
)
def test_a_model_is_named_for_the_last_part_of_its_source_or_as_told(
    text: str, source: str, name: str
) -> None:
    assert parse_model(text) == ModelSource(source, name)


@pytest.mark.parametrize("text", ["", "=name", "source=", "source=Upper", "source=a.b", "___"])
def test_a_model_without_a_source_or_a_usable_name_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match="SOURCE=NAME"):
        parse_model(text)


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(BadOption, match="two models are named 'a'"):
        MeshOptions(HOME, (ModelSource("x", "a"), ModelSource("y", "a")))


@pytest.mark.parametrize("count", [0, 65])
def test_a_count_out_of_range_is_refused_with_its_name(count: int) -> None:
    with pytest.raises(BadOption, match=f"--workers is {count}"):
        MeshOptions(HOME, (DEFAULT_MODEL,), workers=count)


def test_every_model_has_its_own_workers() -> None:
    models = (ModelSource("x", "a"), ModelSource("y", "b"))
    plans = planned(MeshOptions(HOME, models, workers=2, gateways=2, schedulers=2))
    assert list(plans) == [
        *("scheduler-0", "scheduler-1"),
        *("worker-a-0", "worker-a-1", "worker-b-0", "worker-b-1"),
        *("gateway-0", "gateway-1"),
    ]
    assert plans["worker-b-1"].module == "headrace_worker"
    assert plans["worker-b-1"].flags == (
        *("--name", "worker-b-1", "--model-source", "y", "--model-name", "b"),
        *("--engine", "transformers", "--workers-here", "4"),
    )


def test_the_engine_is_told_to_workers_alone() -> None:
    plans = planned(MeshOptions(HOME, (DEFAULT_MODEL,), engine=EngineKind.SCRIPTED))
    assert "scripted" in plans["worker-valley-0"].flags
    assert "--engine" not in plans["gateway-0"].flags


def test_a_setting_reaches_every_process_of_its_service_and_no_other() -> None:
    setting = parse_setting("worker.max_slots=8")
    assert (setting.role, setting.name, setting.value) == (Role.WORKER, "max_slots", "8")
    plans = planned(MeshOptions(HOME, (DEFAULT_MODEL,), settings=(setting,)))
    assert plans["worker-valley-0"].flags[-1] == "--max-slots=8"
    assert "--max-slots=8" not in plans["gateway-0"].flags


def test_the_broker_has_one_setting_the_last_of_which_counts() -> None:
    assert MeshOptions(HOME, (DEFAULT_MODEL,)).sync_interval == "2m"
    chosen = tuple(parse_setting(f"nats.sync_interval={each}") for each in ("500ms", "always"))
    options = MeshOptions(HOME, (DEFAULT_MODEL,), settings=chosen)
    assert options.sync_interval == "always"
    assert not any("always" in flag for each in services(options) for flag in each.flags)


@pytest.mark.parametrize("value", ["", "never", "2", "0s", "2m; debug: true"])
def test_a_sync_interval_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(BadOption, match="it must be always, or a time such as 500ms or 2m"):
        parse_setting(f"nats.sync_interval={value}")


@pytest.mark.parametrize("text", ["max_slots=8", "nats.port=1", "worker.=1", "worker.max_slots"])
def test_a_setting_that_names_no_service_or_no_value_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match=r"SERVICE\.NAME=VALUE"):
        parse_setting(text)

"""What a mesh consists of."""

from __future__ import annotations

import re

import pytest

from headrace.supervisor.plan.mesh_options import (
    DEFAULT_MODEL,
    Auth,
    EngineKind,
    MeshOptions,
    ModelSource,
    Role,
    ServicePlan,
    parse_model,
    parse_models,
    parse_setting,
    services,
)
from headrace.supervisor.state.failures import InvalidOption


def planned(options: MeshOptions) -> dict[str, ServicePlan]:
    return {each.name: each for each in services(options)}


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("default", "default", "valley"),
        ("org/My_Model-1.5B", "org/My_Model-1.5B", "my-model-1-5b"),
        ("/models/llama/", "/models/llama/", "llama"),
        ("/models/llama=small", "/models/llama", "small"),
        ("valley", "valley", "valley"),
        ("/models/qwen=Qwen/Qwen3-0.6B", "/models/qwen", "Qwen/Qwen3-0.6B"),
        ("a=gpt-3.5-turbo", "a", "gpt-3.5-turbo"),
        ("a=Qwen3", "a", "Qwen3"),
        ("a=llama3:8b", "a", "llama3:8b"),
        ("a=模型", "a", "模型"),
        ("a=x=y", "a", "x=y"),
        ("a=-x", "a", "-x"),
        ("a=" + 256 * "x", "a", 256 * "x"),
    ],
)
def test_a_model_is_named_after_the_last_part_of_its_source_unless_a_name_is_given(
    text: str, source: str, name: str
) -> None:
    assert parse_model(text) == ModelSource(source, name)


@pytest.mark.parametrize(
    "text",
    ["", "=name", "source=", "source= ", "source=,", "source=a,b\n", "source=" + 257 * "x", "___"],
)
def test_a_model_without_a_source_or_a_usable_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="SOURCE=NAME"):
        parse_model(text)


def test_a_model_may_have_several_names_of_which_the_first_is_its_own() -> None:
    assert parse_model("a=Qwen/Qwen3, small,gpt-4o") == ModelSource(
        "a", "Qwen/Qwen3", ("small", "gpt-4o")
    )


def test_a_source_with_an_equals_sign_is_named_beside_it() -> None:
    texts, names = ["http://host/v1?key=a", "/models/x=y"], ["remote", "local,b"]
    assert parse_models(texts, names) == (
        ModelSource("http://host/v1?key=a", "remote"),
        ModelSource("/models/x=y", "local", ("b",)),
    )
    with pytest.raises(InvalidOption, match="--name is given 1 times and --model 2 times"):
        parse_models(texts, names[:1])


@pytest.mark.parametrize("other", [ModelSource("y", "a"), ModelSource("y", "b", ("a",))])
def test_two_models_of_one_name_are_refused(other: ModelSource) -> None:
    with pytest.raises(InvalidOption, match="two models are named 'a'"):
        MeshOptions((ModelSource("x", "a"), other))


def test_workers_of_any_model_have_names_that_files_can_have_and_that_differ() -> None:
    names = ("Qwen/Qwen3", "qwen/qwen3", "qwen-qwen3", "模型", "../../etc", 256 * "x", "a b")
    models = tuple(ModelSource("x", name) for name in names)
    workers = [each for each in planned(MeshOptions(models)) if each.startswith("worker-")]
    assert len(workers) == len(names)
    assert all(re.fullmatch(r"worker-[a-z0-9-]{1,63}-0", name) for name in workers)


def test_what_the_mesh_configures_carries_its_id_and_its_names() -> None:
    options = MeshOptions((ModelSource("x", "a", ("b", "c")),))
    (worker,) = (each for each in services(options, mesh_id="m1") if each.role is Role.WORKER)
    assert "--model-aliases=b,c" in worker.flags
    assert "--configured-by=m1" in worker.flags


@pytest.mark.parametrize("count", [0, 65])
def test_a_count_out_of_range_is_refused_with_its_name(count: int) -> None:
    with pytest.raises(InvalidOption, match=f"--workers is {count}"):
        MeshOptions((DEFAULT_MODEL,), workers=count)


def test_every_model_has_its_own_workers() -> None:
    models = (ModelSource("x", "a"), ModelSource("y", "b"))
    plans = planned(MeshOptions(models, workers=2, gateways=2, schedulers=2))
    assert list(plans) == [
        *("scheduler-0", "scheduler-1"),
        *("worker-a-0", "worker-a-1", "worker-b-0", "worker-b-1"),
        *("gateway-0", "gateway-1"),
        *("control-0", "web-0"),
    ]
    assert plans["worker-b-1"].role is Role.WORKER
    assert plans["worker-b-1"].flags == (
        *("--name", "worker-b-1", "--model-source=y", "--model-name=b", "--model-aliases="),
        *("--engine", "transformers", "--workers-here", "4"),
    )


def test_environment_variables_do_not_change_names_and_addresses_of_processes() -> None:
    plans = planned(MeshOptions((ModelSource("x", "a"),)))
    assert "--model-aliases=" in plans["worker-a-0"].flags
    assert plans["gateway-0"].flags[2:4] == ("--advertised-host", "127.0.0.1")
    chosen = (parse_setting("gateway.advertised_host=10.1.2.3"),)
    mine = planned(MeshOptions((ModelSource("x", "a"),), settings=chosen))
    assert mine["gateway-0"].flags[-1] == "--advertised-host=10.1.2.3"


def test_gateways_know_the_names_of_all_models_from_the_start() -> None:
    models = (ModelSource("x", "a", ("gpt-4o", "b")), ModelSource("y", "c"))
    flags = planned(MeshOptions(models))["gateway-0"].flags
    assert '--configured-models=["a,gpt-4o,b", "c"]' in flags


def test_only_workers_get_the_engine_option() -> None:
    plans = planned(MeshOptions((DEFAULT_MODEL,), engine=EngineKind.SCRIPTED))
    assert "scripted" in plans["worker-valley-0"].flags
    assert "--engine" not in plans["gateway-0"].flags


def test_a_setting_reaches_every_process_of_its_service_and_no_other() -> None:
    setting = parse_setting("worker.max_slots=8")
    assert (setting.role, setting.name, setting.value) == (Role.WORKER, "max_slots", "8")
    plans = planned(MeshOptions((DEFAULT_MODEL,), settings=(setting,)))
    assert plans["worker-valley-0"].flags[-1] == "--max-slots=8"
    assert "--max-slots=8" not in plans["gateway-0"].flags


def test_the_broker_has_one_setting_the_last_of_which_counts() -> None:
    assert MeshOptions((DEFAULT_MODEL,)).sync_interval == "2m"
    chosen = tuple(parse_setting(f"nats.sync_interval={each}") for each in ("500ms", "always"))
    options = MeshOptions((DEFAULT_MODEL,), settings=chosen)
    assert options.sync_interval == "always"
    assert not any("always" in flag for each in services(options) for flag in each.flags)


@pytest.mark.parametrize("value", ["", "never", "2", "0s", "2m; debug: true"])
def test_a_sync_interval_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(InvalidOption, match="it must be always, or a time such as 500ms or 2m"):
        parse_setting(f"nats.sync_interval={value}")


@pytest.mark.parametrize("text", ["max_slots=8", "nats.port=1", "worker.=1", "worker.max_slots"])
def test_a_setting_that_names_no_service_or_no_value_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"SERVICE\.NAME=VALUE"):
        parse_setting(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_beyond_this_machine_a_mesh_needs_keys_or_the_word_insecure(host: str) -> None:
    with pytest.raises(InvalidOption, match=f"--host {host} opens the mesh to the network"):
        MeshOptions((DEFAULT_MODEL,), host=host)
    with_keys = MeshOptions((DEFAULT_MODEL,), host=host, auth=Auth.KEYS)
    assert ["unencrypted" in warning for warning in with_keys.warnings] == [True]
    assert MeshOptions((DEFAULT_MODEL,), host=host, auth=Auth.KEYS, tls=True).warnings == ()
    without = MeshOptions((DEFAULT_MODEL,), host=host, insecure=True)
    assert "may do everything" in without.warnings[0]


@pytest.mark.parametrize("auth", Auth)
def test_on_loopback_nothing_is_to_be_warned_of(auth: Auth) -> None:
    assert MeshOptions((DEFAULT_MODEL,), host="::1", auth=auth).warnings == ()


def test_the_page_can_be_left_out() -> None:
    assert "web-0" not in planned(MeshOptions((DEFAULT_MODEL,), web=False))


@pytest.mark.parametrize("origin", ["https://app.example.com", "http://[::1]:3000"])
def test_an_allowed_origin_is_a_scheme_and_a_host(origin: str) -> None:
    assert MeshOptions((DEFAULT_MODEL,), allowed_origins=(origin,)).allowed_origins == (origin,)


@pytest.mark.parametrize("origin", ["*", "https://a.b/", "a.b", "https://a.b:x", "https://*.b"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidOption, match="--allow-origin"):
        MeshOptions((DEFAULT_MODEL,), allowed_origins=(origin,))


def test_control_keeps_its_database_and_the_first_keys_in_the_state_directory() -> None:
    chosen = (parse_setting("control.database_url=postgresql://db/headrace"),)
    options = MeshOptions((DEFAULT_MODEL,), settings=chosen)
    (control,) = (p for p in services(options, state_folder="/state") if p.role is Role.CONTROL)
    assert control.flags == (
        *("--name", "control-0", "--database-url=sqlite:////state/control/headrace.db"),
        *("--bootstrap-keys-dir=/state", "--database-url=postgresql://db/headrace"),
    )

"""The command's verbs on a running mesh."""

from __future__ import annotations

import json

from helpers.command import Ran, headrace
from helpers.running_mesh import RunningMesh

ROLES = {"nats": 1, "scheduler": 2, "worker": 2, "gateway": 2, "control": 1, "envoy": 1}


async def on(mesh: RunningMesh, *arguments: str, given: str | None = None) -> Ran:
    state_dir = ("--state-dir", str(mesh.folder))
    return await headrace(*arguments, *state_dir, folder=mesh.folder, given=given)


async def test_status_as_json_lists_every_process_and_model(mesh: RunningMesh) -> None:
    ran = await on(mesh, "status", "--json")
    found = json.loads(ran.out)
    assert set(found) == {"url", "disk", "processes", "models", "fleet_unknown"}
    assert found["fleet_unknown"] == ""
    assert found["url"] == mesh.url
    roles = [process["role"] for process in found["processes"]]
    assert {role: roles.count(role) for role in roles} == ROLES
    for process in found["processes"]:
        assert set(process) == {
            *("role", "name", "pid", "ports", "healthy", "restarts", "drained"),
            *("fault", "last_end"),
        }
        assert process["fault"] == ""
        assert process["healthy"], process
        assert process["ports"], process
    (model,) = found["models"]
    assert set(model) == {"id", "lanes", "workers"}
    assert model["id"] == "scripted"
    assert [lane["priority"] for lane in model["lanes"]] == ["interactive", "standard", "bulk"]
    assert len(model["workers"]) == 2


async def test_status_prints_a_line_for_each_process(mesh: RunningMesh) -> None:
    ran = await on(mesh, "status")
    assert ran.status == 0
    assert ran.out.count(" healthy ") == sum(ROLES.values())
    assert "model scripted: 2 workers" in ran.out


async def test_generate_prints_the_text_and_nothing_else(mesh: RunningMesh) -> None:
    command = ("generate", "Hello", "--max-tokens", "4", "--seed", "7")
    streamed = await on(mesh, *command)
    whole = await on(mesh, *command, "--no-stream")
    assert streamed.status == 0
    assert streamed.err == ""
    assert streamed.out.strip()
    assert whole.out == streamed.out


async def test_a_url_replaces_the_state_directory(mesh: RunningMesh) -> None:
    ran = await headrace("workers", "--url", f"{mesh.url}/v1", folder=mesh.folder)
    assert ran.status == 0
    assert "worker-scripted-0" in ran.out


async def test_a_chat_has_turns_can_be_reset_and_ends(mesh: RunningMesh) -> None:
    lines = "Hi\nAnd you?\n/reset\nHi\n/exit\nnever sent\n"
    talked = await on(mesh, "chat", "--max-tokens", "4", "--temperature", "0", given=lines)
    assert talked.status == 0
    assert talked.err == ""
    first, second, _, again, _ = talked.out.split("> ")[1:]
    assert first == again != second


async def test_lanes_and_workers_are_listed(mesh: RunningMesh) -> None:
    lanes, workers = await on(mesh, "lanes"), await on(mesh, "workers")
    assert [line.split()[:2] for line in lanes.out.splitlines()[1:]] == [
        ["scripted", "interactive"],
        ["scripted", "standard"],
        ["scripted", "bulk"],
    ]
    assert [line.split()[0] for line in workers.out.splitlines()[1:]] == [
        "worker-scripted-0",
        "worker-scripted-1",
    ]


async def test_an_unknown_model_is_rejected_with_the_known_ones(mesh: RunningMesh) -> None:
    ran = await on(mesh, "generate", "Hello", "--model", "nothing")
    assert ran.status == 2
    assert "nothing" in ran.err
    assert "scripted" in ran.err
    assert ran.err.count("\n") == 1


async def test_bench_measures_through_the_public_port(mesh: RunningMesh) -> None:
    for how in ("--chat", "--completions", "--no-stream"):
        ran = await on(
            mesh,
            *("bench", how, "--concurrency", "1,4", "--requests", "8", "--max-tokens", "8"),
            *("--ignore-eos", "--json"),
        )
        assert ran.status == 0, ran.err
        for run in json.loads(ran.out)["runs"]:
            assert (run["requests"], run["errors"], run["output_tokens"]) == (8, 0, 64)
            assert run["ttft"]["p50_ms"] > 0
            assert {"gateway-0", "worker-scripted-0", "envoy"} <= set(run["cpu_s"])


async def test_a_second_mesh_in_one_state_directory_is_rejected(mesh: RunningMesh) -> None:
    for more in ((), ("--detach",)):
        ran = await on(mesh, "up", "--engine", "scripted", "--port", "0", *more)
        assert ran.status == 1
        assert "a mesh is running in" in ran.err

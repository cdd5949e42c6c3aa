"""Short chaos runs on a mesh, as its users start them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.chaos.faults import FaultKind
from headrace.chaos.history import FaultInjected, StreamFinished, read
from helpers.command import Ran, headrace
from helpers.fresh_mesh import fresh_mesh

MESH = ("--workers", "2", "--schedulers", "2", "--gateways", "2", "--scripted-step-ms", "10")
CHAOS_S = 150.0


async def chaos(folder: Path, *options: str) -> tuple[Ran, dict[str, Any]]:
    """Run the command; return its output and its scorecard."""
    scorecard = folder / "scorecard.json"
    command = ("chaos", *options, "--json", str(scorecard))
    ran = await headrace(*command, folder=folder, within_s=CHAOS_S)
    found: dict[str, Any] = json.loads(scorecard.read_text())
    return ran, found


@pytest.mark.timeout(180)
async def test_nothing_is_lost_repeated_or_altered_whatever_is_killed_or_frozen(
    tmp_path: Path,
) -> None:
    async with fresh_mesh(tmp_path, *MESH):
        ran, card = await chaos(tmp_path, "--minutes", "0", "--requests", "12", "--pause", "1")
    assert ran.status == 0, ran.out + ran.err
    assert "passed" in ran.out
    assert {fault["kind"] for fault in card["faults"]} == {"worker", "scheduler", "freeze", "nats"}
    wrongs = ("lost", "repeated", "altered", "failed", "held")
    assert {name: card[name] for name in wrongs} == dict.fromkeys(wrongs, 0)
    assert card["completed"] > 30
    history = list(read(tmp_path / ".headrace" / "chaos.jsonl"))
    assert (
        sum(isinstance(event, StreamFinished) for event in history)
        == card["completed"] + card["asks"]
    )
    assert sum(isinstance(event, FaultInjected) for event in history) == 4


@pytest.mark.timeout(180)
async def test_a_rolling_restart_of_every_process_fails_and_rejects_no_request(
    tmp_path: Path,
) -> None:
    async with fresh_mesh(tmp_path, *MESH):
        options = ("--minutes", "0", "--requests", "12", "--pause", "0.5", "--faults", "rolling")
        ran, card = await chaos(tmp_path, *options)
    assert ran.status == 0, ran.out + ran.err
    wrongs = ("lost", "repeated", "altered", "failed", "refused", "held")
    assert {name: card[name] for name in wrongs} == dict.fromkeys(wrongs, 0)
    assert card["errors"] == {}
    assert [(fault["count"], fault["never_mended"]) for fault in card["faults"]] == [(6, 0)]
    assert card["completed"] > 30


@pytest.mark.timeout(180)
async def test_clients_of_a_killed_gateway_resume_and_lose_nothing(tmp_path: Path) -> None:
    async with fresh_mesh(tmp_path, *MESH, "--auth", "keys"):
        options = ("--minutes", "0", "--requests", "12", "--pause", "1", "--faults", "gateway")
        ran, card = await chaos(tmp_path, *options)
    assert ran.status == 0, ran.out + ran.err
    wrongs = ("lost", "repeated", "altered", "failed", "misbilled", "held")
    assert card["rows"] >= card["completed"] + card["asks"]
    assert card["background"] > 0
    assert card["batch_rows"] > 0
    assert {name: card[name] for name in wrongs} == dict.fromkeys(wrongs, 0)
    assert "resumed after the loss of a gateway" in ran.out


@pytest.mark.timeout(180)
async def test_callers_with_keys_do_not_notice_that_control_is_killed(tmp_path: Path) -> None:
    async with fresh_mesh(tmp_path, *MESH, "--auth", "keys"):
        options = ("--minutes", "0", "--requests", "12", "--pause", "1", "--faults", "control")
        ran, card = await chaos(tmp_path, *options)
    assert ran.status == 0, ran.out + ran.err
    wrongs = ("lost", "repeated", "altered", "failed", "refused", "misbilled", "held")
    assert {name: card[name] for name in wrongs} == dict.fromkeys(wrongs, 0)
    assert card["errors"] == {}
    faults = [(fault["kind"], fault["count"], fault["never_mended"]) for fault in card["faults"]]
    assert faults == [("control", 1, 0)]
    assert card["completed"] > 30


async def test_an_unknown_fault_is_named_with_the_known_ones(
    tmp_path: Path,
) -> None:
    ran = await headrace("chaos", "--faults", "worker,meteor", folder=tmp_path)
    assert ran.status == 2
    assert "meteor" in ran.err
    for kind in FaultKind:
        assert f"'{kind}'" in ran.err


async def test_only_a_mesh_of_this_machine_is_tested_and_its_former_name_still_works(
    tmp_path: Path,
) -> None:
    ran = await headrace("torture", folder=tmp_path)
    assert ran.status == 1
    assert ran.err.startswith("headrace: no mesh is running in")

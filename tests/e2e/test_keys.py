"""A mesh whose callers need keys, as an owner and as an outsider meet it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from headrace.auth.keys import new_key
from headrace.bus import BusUnavailable, connect
from headrace.supervisor.state.state_dir import StateDir
from helpers.command import headrace
from helpers.eventually import eventually
from helpers.running_mesh import RunningMesh, start, stop

REVOKED_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    mesh = start(tmp_path_factory.mktemp("guarded"), "--engine", "scripted", "--auth", "keys")
    yield mesh
    stop(mesh)


def client(mesh: RunningMesh, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mesh.url}/v1", api_key=key, max_retries=0)


def answer(mesh: RunningMesh, key: str) -> str:
    with client(mesh, key) as api:
        done = api.completions.create(model=mesh.model, prompt="Hello", max_tokens=3)
    return done.choices[0].text


def answer_for(mesh: RunningMesh, key: str, seconds: float) -> None:
    """Send requests for so long, or until one is refused."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        answer(mesh, key)


def key_of(file: Path) -> str:
    assert file.stat().st_mode & 0o077 == 0
    return file.read_text().strip()


async def run(mesh: RunningMesh, *arguments: str) -> str:
    ran = await headrace(*arguments, "--state-dir", str(mesh.folder), folder=mesh.folder)
    assert ran.status == 0, ran.out + ran.err
    return ran.out


def test_the_first_keys_do_what_they_are_for_and_nothing_else(guarded: RunningMesh) -> None:
    home = StateDir(guarded.folder)
    assert answer(guarded, key_of(home.cli_key))
    with pytest.raises(openai.PermissionDeniedError) as denied:
        answer(guarded, key_of(home.admin_key))
    assert denied.value.code == "permission_denied"


@pytest.mark.parametrize(
    "key", ["none", "hr_" + "0" * 61, new_key()], ids=["none", "mistyped", "unknown"]
)
def test_the_openai_client_reads_the_error_of_a_bad_key(guarded: RunningMesh, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        answer(guarded, key)
    assert refused.value.body == {
        "message": "Incorrect API key provided.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


async def test_a_new_key_works_until_it_is_revoked(guarded: RunningMesh) -> None:
    made = json.loads(await run(guarded, "key", "create", "--tenant", "acme", "--json"))
    assert answer(guarded, made["key"])
    await run(guarded, "key", "revoke", made["id"])
    with pytest.raises(openai.AuthenticationError):
        answer_for(guarded, made["key"], REVOKED_WITHIN_S)


async def test_while_control_is_away_keys_are_valid_and_revoked_ones_are_not(
    guarded: RunningMesh,
) -> None:
    home = StateDir(guarded.folder)
    made = json.loads(await run(guarded, "key", "create", "--tenant", "acme", "--json"))
    await run(guarded, "key", "revoke", made["id"])
    control = home.read_process("control-0")
    assert control.pid is not None
    os.kill(control.pid, signal.SIGKILL)
    assert answer(guarded, key_of(home.cli_key))
    with pytest.raises(openai.AuthenticationError):
        answer(guarded, made["key"])

    async def is_back() -> bool:
        ran = await headrace("key", "list", "--state-dir", str(guarded.folder), folder=home.folder)
        return ran.status == 0

    await eventually(is_back, within_s=30)


async def test_commands_take_the_keys_of_the_state_directory(guarded: RunningMesh) -> None:
    assert await run(guarded, "generate", "Hello", "--max-tokens", "3")
    lanes = json.loads(await run(guarded, "lanes", "--json"))["lanes"]
    assert {lane["priority"] for lane in lanes} == {"interactive", "standard", "bulk"}
    assert await run(guarded, "workers")
    assert "no dead letters" in await run(guarded, "dead-letters")


async def test_the_broker_refuses_whoever_has_no_password(guarded: RunningMesh) -> None:
    port = StateDir(guarded.folder).read_process("nats").ports["nats"]
    with pytest.raises(BusUnavailable, match="refuses this user, password or token"):
        await connect(f"nats://127.0.0.1:{port}", name="outsider", wait_s=2)
    # Nobody was refused what it needs; `test_nats_permissions` has what each role may do.
    assert "Violation" not in (guarded.folder / "logs" / "nats.log").read_text()


async def test_no_secret_is_where_others_can_read_it(guarded: RunningMesh) -> None:
    made = json.loads(await run(guarded, "key", "create", "--tenant", "acme", "--json"))
    answer(guarded, made["key"])
    home = StateDir(guarded.folder)
    hidden = [home.admin_key, home.cli_key, *(home.folder / "secrets").rglob("*")]
    secrets = {made["key"].encode()}
    for file in hidden:
        if file.is_file():
            assert file.stat().st_mode & 0o077 == 0, file
            secrets.add(file.read_bytes().strip().rpartition(b":")[2].rpartition(b" ")[2])
    # Three keys, a pepper, the key of webhooks, proofs of Envoy and delivery, six passwords.
    assert len(secrets) == 13
    for file in home.folder.rglob("*"):
        if file in hidden or not file.is_file() or file.stat().st_mode & 0o077 == 0:
            continue
        assert not [secret for secret in secrets if secret in file.read_bytes()], file
    for log in home.logs.iterdir():
        assert not [secret for secret in secrets if secret in log.read_bytes()], log
    for process in home.read_record().processes:
        shown = " ".join(psutil.Process(process.pid).cmdline()).encode()
        assert not [secret for secret in secrets if secret in shown], process.name

"""How the command fails: one line with the fact and what to do, and the exit status."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from helpers.command import headrace


async def test_a_command_without_a_mesh_prints_how_to_start_one(tmp_path: Path) -> None:
    for name in ("status", "down", "lanes", "workers", "dead-letters"):
        ran = await headrace(name, folder=tmp_path)
        assert (ran.status, ran.out) == (1, "")
        assert ran.err == (
            f"headrace: no mesh is running in {tmp_path}/.headrace; start one with `headrace up`\n"
        )


async def test_a_port_in_use_is_reported_with_advice(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = await headrace("up", "--port", port, folder=tmp_path)
    assert ran.status == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in ran.err
    assert "--port 0" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("--workers", "0"), "--workers is 0; it must be from 1 to 64"),
        (("--model", "a= "), "the name '' of --model 'a= ' is invalid: it is empty"),
        (("--model", "a", "--name", "b\tc"), "a character that cannot be printed, U+0009"),
        (("--model", "a", "--model", "b", "--name", "c"), "--name for each --model"),
        (("--model", "./nothing"), "there is no folder or file ./nothing"),
        (("--set", "max_slots=1"), "SERVICE is gateway, scheduler, worker, control or web"),
        (("--nonsense",), "No such option"),
        (("--host", "localhost"), "it must be an IP address"),
        (("--host", "0.0.0.0"), "require keys with --auth keys"),
        (("--allow-origin", "example.com"), "is not an origin, such as https://app.example.com"),
        (("--port", "70000"), "is not in the range"),
        (("--engine", "vapour"), "'vapour' is not one of"),
    ],
)
async def test_invalid_options_exit_with_status_2_before_anything_starts(
    tmp_path: Path, arguments: tuple[str, ...], fact: str
) -> None:
    ran = await headrace("up", *arguments, folder=tmp_path)
    assert ran.status == 2
    assert fact in ran.err
    assert not (tmp_path / ".headrace").exists()


async def test_an_unreachable_url_is_reported(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        ran = await headrace("generate", "Hello", "--url", url, folder=tmp_path)
    assert ran.status == 1
    assert ran.err.startswith(f"headrace: nothing answers at {url}: ")
    assert ran.err.count("\n") == 1


async def test_an_option_that_a_command_would_not_see_is_refused(tmp_path: Path) -> None:
    """`headrace requests` and `headrace dead-letters` list where no command follows."""
    for arguments in (("requests", "--limit", "5", "cancel", "a"), ("dead-letters", "--url", "x")):
        command = () if "cancel" in arguments else ("resend", "3")
        ran = await headrace(*arguments, *command, folder=tmp_path)
        assert ran.status == 2
        assert f"write {arguments[1]} behind the command" in ran.err

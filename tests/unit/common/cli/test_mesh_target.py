"""Which key a command sends to which mesh."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from headrace.cli.console.options import MeshTarget
from headrace.supervisor.state.state_dir import MeshRecord, StateDir

URL = "http://127.0.0.1:8080"


@pytest.fixture
def home(tmp_path: Path) -> StateDir:
    home = StateDir(tmp_path)
    home.admin_key.write_text("hr_admin\n")
    home.cli_key.write_text("hr_cli\n")
    return home


def test_of_the_mesh_here_models_are_used_with_one_key_and_workers_seen_with_another(
    home: StateDir,
) -> None:
    mesh = MeshTarget(None, home)
    assert (mesh.using_key(), mesh.admin_key()) == ("hr_cli", "hr_admin")


def test_the_key_of_the_environment_goes_before_both(home: StateDir) -> None:
    mesh = MeshTarget(None, home, "hr_mine")
    assert (mesh.using_key(), mesh.admin_key()) == ("hr_mine", "hr_mine")
    assert "hr_mine" not in repr(mesh)


def test_another_mesh_does_not_get_the_keys_of_this_one(home: StateDir) -> None:
    with home.lock():
        home.write_record(MeshRecord(1, URL, ready=True, models=[]))
        assert MeshTarget("http://192.0.2.1:8080", home).using_key() is None
        assert MeshTarget(URL, home).using_key() == "hr_cli"


def test_a_mesh_without_keys_gets_none(tmp_path: Path) -> None:
    mesh = MeshTarget(None, StateDir(tmp_path))
    assert (mesh.using_key(), mesh.admin_key()) == (None, None)


def test_a_key_that_cannot_be_read_is_an_error_with_its_file(home: StateDir) -> None:
    home.cli_key.unlink()
    home.cli_key.mkdir()
    with pytest.raises(click.ClickException, match=r"cli\.key cannot be read"):
        MeshTarget(None, home).using_key()

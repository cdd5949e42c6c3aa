"""The state directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.supervisor.state.failures import MeshRunning, NoMesh
from headrace.supervisor.state.state_dir import Home, MeshRecord, ProcessRecord

RECORD = MeshRecord(
    supervisor_pid=7,
    url="http://127.0.0.1:1",
    ready=True,
    models=["a"],
    processes=[ProcessRecord("worker", "worker-a-0", 8, {"metrics": 9}, 2)],
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.held():
        home.write_record(RECORD)
        assert Home(tmp_path).read_record() == RECORD


def test_a_directory_is_held_by_one_mesh_at_a_time(tmp_path: Path) -> None:
    with Home(tmp_path).held():
        with pytest.raises(MeshRunning, match="--state-dir"), Home(tmp_path).held():
            pass
        assert Home(tmp_path).is_held
    assert not Home(tmp_path).is_held
    with Home(tmp_path).held():
        pass


def test_a_record_that_a_dead_supervisor_left_is_not_believed(tmp_path: Path) -> None:
    Home(tmp_path).write_record(RECORD)
    with pytest.raises(NoMesh, match="headrace up"):
        Home(tmp_path).read_record()


def test_asking_about_a_directory_does_not_make_it(tmp_path: Path) -> None:
    assert not Home(tmp_path / "none").is_held
    assert not (tmp_path / "none").exists()


def test_the_logs_of_one_mesh_before_are_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.held():
        for text in ("first", "second"):
            home.log("nats").write_text(text)
            home.rotate_logs()
    assert [log.name for log in home.logs.iterdir()] == ["nats.log.1"]
    assert (home.logs / "nats.log.1").read_text() == "second"

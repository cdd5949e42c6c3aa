"""Disks that take nothing, with real file systems."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.supervisor.state.disk import disk_problem
from headrace.supervisor.state.failures import DiskFull, ProcessFailed
from headrace.supervisor.state.files import write_atomically
from headrace.supervisor.state.state_dir import StateDir
from helpers.small_disk import small_disk

LOGS = """
import logging
from headrace.telemetry import logs
logs.configure(service="worker", name="one", level="info")
for number in range({lines}):
    logging.getLogger("a").info("event", extra={{"padding": "x" * 1000}})
"""


def test_a_disk_with_free_space_has_no_problem_even_before_the_folder_exists(
    tmp_path: Path,
) -> None:
    assert disk_problem(tmp_path / "a" / "b") is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_with_free_and_needed_space(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        state = disk.folder / "state"
        with pytest.raises(DiskFull) as refused, StateDir(state).lock():
            pytest.fail("it was held")
        disk.free()
        assert disk_problem(state) is None
    assert str(refused.value) == (
        f"the mesh cannot keep its state: no space left on device: {state} is on the file system "
        f"mounted at {disk.folder}, which has 0.0 MiB of 24.0 MiB free; 8.0 MiB are needed"
    )


def test_a_disk_without_inodes_is_reported(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "nr_inodes=3") as disk:
        for name in ("one", "two"):
            (disk.folder / name).touch()
        assert "no inodes left" in str(disk_problem(disk.folder))


def test_a_read_only_disk_is_reported(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
        assert str(disk_problem(disk.folder)).startswith("read-only file system")


def test_a_folder_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(disk_problem(tmp_path / "file" / "state")).startswith("not a directory")


def test_a_failure_on_a_full_disk_names_the_disk_where_the_log_is_empty(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        failed = ProcessFailed("nats", "ended with status 1", disk.folder / "nats.log")
    assert "no space left on device" in str(failed)


def test_a_file_that_cannot_be_written_stays_as_it_was_and_leaves_no_draft(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        file = disk.folder / "file"
        write_atomically(file, "before")
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            write_atomically(file, "after" * 10_000)
        disk.free()
        assert file.read_text() == "before"
        assert list(disk.folder.iterdir()) == [file]


def test_a_process_lives_on_where_its_log_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, "-c", LOGS.format(lines=100)], stdout=full, check=False
        )
    assert process.returncode == 0


def test_lines_that_could_not_be_logged_are_counted_once_there_is_room(tmp_path: Path) -> None:
    code = (
        LOGS.format(lines=100)
        + f"""
import pathlib
pathlib.Path({str(tmp_path / "disk" / "ballast")!r}).unlink()
logging.getLogger("a").info("there is room")
"""
    )
    with small_disk(tmp_path / "disk") as disk:
        log = disk.folder / "log"
        with log.open("ab") as out:
            disk.fill()
            subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
        lines = log.read_text().splitlines()
    assert '"event": "log.lines_lost", "lines": 100' in lines[-2]
    assert '"event": "there is room"' in lines[-1]

"""Restarts and stops, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest

from headrace.supervisor import child as child_module
from headrace.supervisor.child import Child
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.failures import ProcessFailed
from headrace.supervisor.state.state_dir import StateDir
from headrace.supervisor.supervised_process import SupervisedProcess
from helpers.eventually import eventually

STAYS = "import signal; signal.pause()"
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"


class Script:
    """A program that listens as soon as it runs."""

    role = Role.WORKER
    name = "script"

    def __init__(self, code: str) -> None:
        self.code = code

    def prepare(self) -> None:
        """It has no files."""

    def argv(self) -> Sequence[str]:
        return (sys.executable, "-c", self.code)

    async def read_ports(self, pid: int) -> dict[str, int] | None:
        return {"pid": pid}


class Supervised:
    """A running script and what its supervision has reported."""

    def __init__(self, code: str, folder: Path, *, is_optional: bool = False) -> None:
        self.reports: list[str] = []
        self.process = SupervisedProcess(
            Script(code),
            StateDir(folder),
            on_change=lambda: None,
            report=lambda name, fact: self.reports.append(fact),
            is_optional=is_optional,
        )
        self.task = asyncio.create_task(self.process.run())

    async def pid(self, *, other_than: int | None = None) -> int:
        await eventually(lambda: self.process.record.pid not in (None, other_than))
        assert self.process.record.pid is not None
        return self.process.record.pid


@pytest.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[Supervised]:
    supervised = Supervised(STAYS, tmp_path)
    yield supervised
    supervised.process.kill()
    await supervised.task


async def test_a_process_that_dies_is_started_again_and_counted(supervised: Supervised) -> None:
    supervised.process.mesh_is_ready()
    first = await supervised.pid()
    os.kill(first, signal.SIGKILL)
    second = await supervised.pid(other_than=first)
    assert psutil.pid_exists(second)
    assert supervised.process.record.restarts == 1
    assert supervised.reports == ["was killed by signal 9; starts again in 0.2 s"]


async def test_a_process_is_started_again_where_the_current_directory_has_been_removed(
    supervised: Supervised, tmp_path: Path
) -> None:
    supervised.process.mesh_is_ready()
    first = await supervised.pid()
    (tmp_path / "here").mkdir()
    with contextlib.chdir(tmp_path / "here"):
        (tmp_path / "here").rmdir()
        os.kill(first, signal.SIGKILL)
        second = await supervised.pid(other_than=first)
    assert psutil.Process(second).cwd() == str(tmp_path)
    assert supervised.reports == ["was killed by signal 9; starts again in 0.2 s"]


async def test_ports_are_those_of_the_run_that_is_now(supervised: Supervised) -> None:
    supervised.process.mesh_is_ready()
    first = await supervised.pid()
    await eventually(lambda: supervised.process.record.ports == {"pid": first})
    os.kill(first, signal.SIGKILL)
    second = await supervised.pid(other_than=first)
    await eventually(lambda: supervised.process.record.ports == {"pid": second})


async def test_a_process_that_keeps_dying_at_start_fails_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    supervised = Supervised("import sys; sys.exit('no such model')", tmp_path)
    with pytest.raises(ProcessFailed, match=r"(?s)script ended with status 1.*no such model"):
        await supervised.task
    assert supervised.process.record.restarts == 2


async def test_a_process_that_rejects_its_settings_is_not_started_again(tmp_path: Path) -> None:
    supervised = Supervised("import sys; sys.exit(2)", tmp_path)
    with pytest.raises(ProcessFailed, match="ended with status 2"):
        await supervised.task
    assert supervised.process.record.restarts == 0


async def test_an_optional_process_that_fails_is_reported_and_started_again(
    tmp_path: Path,
) -> None:
    supervised = Supervised("import sys; sys.exit('no such model')", tmp_path, is_optional=True)
    await eventually(lambda: supervised.process.failure is not None)
    assert "no such model" in str(supervised.process.failure)
    assert supervised.process.record.restarts == 3
    assert await supervised.process.stop(deadline_s=5)
    await supervised.task


async def test_files_that_cannot_be_loaded_are_tried_again_at_long_intervals(
    tmp_path: Path,
) -> None:
    supervised = Supervised("import sys; sys.exit(2)", tmp_path, is_optional=True)
    await eventually(lambda: bool(supervised.reports))
    assert supervised.reports == ["ended with status 2; starts again in 30 s"]
    assert await supervised.process.stop(deadline_s=5)
    await supervised.task


async def test_a_stopped_process_ends_and_is_not_started_again(supervised: Supervised) -> None:
    pid = await supervised.pid()
    assert await supervised.process.stop(deadline_s=5)
    await supervised.task
    assert not psutil.pid_exists(pid)
    assert supervised.reports == []


async def test_a_process_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"{IGNORES_SIGTERM}; print('deaf', flush=True); {STAYS}"
    child = await Child.start((sys.executable, "-c", code), log=log, folder=tmp_path)
    await eventually(lambda: "deaf" in log.read_text())
    assert not await child.stop(deadline_s=0.05)
    assert not psutil.pid_exists(child.pid)


async def test_cancelling_the_supervision_leaves_no_process(tmp_path: Path) -> None:
    supervised = Supervised(STAYS, tmp_path)
    pid = await supervised.pid()
    supervised.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await supervised.task
    assert not psutil.pid_exists(pid)


async def test_a_process_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent_code = f"""
import asyncio, signal, sys
from pathlib import Path
from headrace.supervisor.child import Child
async def main():
    child = await Child.start((sys.executable, "-c", {STAYS!r}),
        log=Path({str(tmp_path / "log")!r}), folder=Path("/"))
    print(child.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", parent_code), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not psutil.pid_exists(pid))


def test_a_program_is_not_started_once_its_parent_has_ended(tmp_path: Path) -> None:
    leash = Path(child_module.__file__).with_name("parent_watch.py")
    orphan = subprocess.run(
        [sys.executable, leash, "1", "/bin/true"], capture_output=True, text=True, check=False
    )
    assert orphan.returncode == 1
    assert "parent 1 is gone" in orphan.stderr

"""Keeps one program running: starts it, learns its ports, restarts it when it dies.

A worker that is killed, as its `report` and `record` show it:

    started up, mesh ready          ports {"metrics": 9100}, restarts 0
    SIGKILL from outside            report "was killed by signal 9; starts again in 0.2 s"
                                    record: pid None, ports {}, restarts 1, last_end "was killed …"
    0.2 s later: runs again         record: pid 4712, ports {"metrics": 9101}
    dies again at once              report "… starts again in 0.4 s": `Backoff` doubles
    refuses its settings, status 2  report "ended with status 2; starts again in 30 s"
    the same before the mesh was    ProcessFailed ends the mesh, or is kept in `failure` if the
    ready                           process is optional
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.supervisor.child import Child
from headrace.supervisor.plan.backoff import Backoff
from headrace.supervisor.plan.program import Program
from headrace.supervisor.state.disk import NEEDED_BY_PROCESS_BYTES, disk_problem
from headrace.supervisor.state.failures import ProcessFailed
from headrace.supervisor.state.state_dir import ProcessRecord, StateDir

_POLL_S = 0.05
_BAD_SETTINGS = 2
"""Exit status of every service for settings that it rejects; the next run would reject them too."""
_BAD_SETTINGS_WAIT_S = 30.0
"""Before the next run where only a change from outside can help: loading a model is expensive."""
_MAX_STARTUP_DEATHS = 3
_REPLACE_TIMEOUT_S = 2.0
"""For a process that is replaced to end by itself. One that hangs does not."""


class SupervisedProcess:
    """One process of the mesh, over all of its runs.

    Args:
        is_optional: whether the mesh may become ready without it; it is then retried for ever.
        on_change: called when the record changes.
        report: called with the process's name and what happened to it.
    """

    def __init__(
        self,
        program: Program,
        state_dir: StateDir,
        *,
        on_change: Callable[[], None],
        report: Callable[[str, str], None],
        is_optional: bool = False,
    ) -> None:
        self.program = program
        self.log: Path = state_dir.log(program.name)
        self.record = ProcessRecord(program.role, program.name, pid=None, ports={}, restarts=0)
        self.listening = asyncio.Event()
        """Set while its ports are known."""
        self.ended = asyncio.Event()
        """Set once it is not started again."""
        self.failure: ProcessFailed | None = None
        """Why the mesh becomes ready without it."""
        self._is_optional = is_optional
        self._state_dir = state_dir
        self._child: Child | None = None
        self._backoff = Backoff()
        self._mesh_was_ready = False
        self._replace_reason = ""
        self._on_change = on_change
        self._report = report

    def mesh_is_ready(self) -> None:
        """The mesh has been ready: from now on every death is followed by another run."""
        self._mesh_was_ready = True

    async def run(self) -> None:
        """Run the program again and again until `stop`. Cancelled, it kills the process.

        Raises:
            ProcessFailed: before the mesh was ready, it kept dying or rejected its settings. An
                optional process sets `failure` instead.
        """
        while not self.ended.is_set():
            began_s = time.monotonic()
            cause, has_bad_settings = await self._run_once()
            if self.ended.is_set():
                return
            if self._state_dir.is_marked_drained(self.program.name):
                await self._stay_drained()
            else:
                ran_s = time.monotonic() - began_s
                await self._restart(cause, has_bad_settings=has_bad_settings, ran_s=ran_s)

    async def stop(self, *, deadline_s: float) -> bool:
        """End it for good; return False if it had to be killed."""
        self.ended.set()
        return self._child is None or await self._child.stop(deadline_s=deadline_s)

    def kill(self) -> None:
        """End it for good, at once."""
        self.ended.set()
        if self._child is not None:
            self._child.kill()

    def reload(self) -> None:
        """Have it read its files again, by SIGHUP."""
        if self._child is not None:
            self._child.reload()

    async def replace(self, reason: str) -> None:
        """End this run; `run` starts another."""
        if (child := self._child) is not None:
            self._replace_reason = reason
            await child.stop(deadline_s=_REPLACE_TIMEOUT_S)

    def set_fault(self, fault: str) -> None:
        """Record and report why it does not do its work; empty if it does."""
        if fault != self.record.fault:
            self._report(self.program.name, fault or "is healthy again")
            self._update(fault=fault)

    async def _run_once(self) -> tuple[str, bool]:
        """Return how the run ended, and whether it rejected its settings."""
        try:
            status = await self._run()
        except OSError as error:  # its files cannot be written, or there is no memory for it
            return f"cannot be started: {error}", False
        if self._replace_reason:
            reason, self._replace_reason = self._replace_reason, ""
            return f"was ended: {reason}", False
        cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return cause, status == _BAD_SETTINGS

    async def _run(self) -> int:
        problem = disk_problem(self._state_dir.folder, needed_bytes=NEEDED_BY_PROCESS_BYTES)
        if problem is not None:
            # Why not tried: it would run and could not write the ports that it listens on.
            raise OSError(str(problem))
        self.program.prepare()
        child = await Child.start(self.program.argv(), log=self.log, folder=self._working_folder())
        self._child = child
        if self.ended.is_set():
            child.kill()
        self._update(pid=child.pid)
        try:
            async with asyncio.TaskGroup() as group:
                finding_ports = group.create_task(self._find_ports(child))
                status = await child.wait()
                finding_ports.cancel()
                return status
        finally:
            child.kill()
            await child.wait()
            self._child = None
            self.listening.clear()
            self._update(pid=None, ports={})

    def _working_folder(self) -> Path | None:
        """Return the program's current directory: ours, or the state directory if ours is gone."""
        try:
            Path.cwd()
        except OSError:
            # Why not ours: a program that looks up its current directory fails.
            return self._state_dir.folder
        # Why not by name: we may be in a directory that we must not enter again, as after sudo.
        return None

    async def _find_ports(self, child: Child) -> None:
        while (ports := await self.program.read_ports(child.pid)) is None:
            await asyncio.sleep(_POLL_S)
        self.listening.set()
        self._update(ports=ports)

    async def _stay_drained(self) -> None:
        """Wait until the drain is undone or the mesh ends."""
        name = self.program.name
        self._report(name, f"is drained; start it again with `headrace drain {name} --undo`")
        self._update(drained=True)
        while self._state_dir.is_marked_drained(name) and not self.ended.is_set():
            await self._pause(_POLL_S)
        self._update(drained=False)

    async def _restart(self, cause: str, *, has_bad_settings: bool, ran_s: float) -> None:
        """Wait before the next run, or fail while the mesh starts."""
        self._backoff = self._backoff.after_death(ran_s=ran_s)
        gives_up = has_bad_settings or self._backoff.deaths >= _MAX_STARTUP_DEATHS
        if gives_up and not self._mesh_was_ready and self.failure is None:
            failure = ProcessFailed(self.program.name, cause, self.log)
            if not self._is_optional:
                raise failure
            self.failure = failure
        wait_s = _BAD_SETTINGS_WAIT_S if has_bad_settings else self._backoff.wait_s
        self._report(self.program.name, f"{cause}; starts again in {wait_s:g} s")
        self._update(restarts=self.record.restarts + 1, last_end=cause)
        await self._pause(wait_s)

    def _update(self, **changes: Any) -> None:
        """Replace the record by one with these fields changed."""
        self.record = replace(self.record, **changes)
        self._on_change()

    async def _pause(self, wait_s: float) -> None:
        """Wait, or return early when the process ends for good."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.ended.wait()

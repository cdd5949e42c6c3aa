"""Keeps one program running: starts it, learns its ports, starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from headrace.supervisor.child import Child
from headrace.supervisor.plan.backoff import Backoff
from headrace.supervisor.plan.program import Program
from headrace.supervisor.state.disk import NEEDED_BY_PROCESS_BYTES, disk_problem
from headrace.supervisor.state.failures import ProcessFailed
from headrace.supervisor.state.state_dir import ProcessRecord, StateDir

_LOOK_EVERY_S = 0.05
_BAD_SETTINGS = 2
"""Exit status that every service has for settings it refuses; the next start would too."""
_HOPELESS_WAIT_S = 30.0
"""Before the next try where only what somebody else changes can help: to load a model is dear."""
_DEATHS_AT_START = 3
_LAST_CHANCE_S = 2.0
"""For a process that is replaced to end by itself. One that hangs does not."""


class SupervisedProcess:
    """One program of the mesh.

    Args:
        is_optional: the mesh may become ready without it; it is then tried again and again.
        on_change: called when the record changes.
        report: told in words what happened.
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
        self.ports: dict[str, int] = {}
        self.restarts = 0
        self.fault = ""
        self.listening = asyncio.Event()
        """Set while its ports are known."""
        self.ended = asyncio.Event()
        """It is not started again."""
        self.failure: ProcessFailed | None = None
        """Why the mesh becomes ready without it."""
        self._can_be_missed = is_optional
        self._state_dir = state_dir
        self._log = state_dir.log(program.name)
        self._child: Child | None = None
        self._backoff = Backoff()
        self._starting_up = True
        self._is_out = False
        self._why_replaced = ""
        self._last_end = ""
        self._on_change = on_change
        self._report = report

    @property
    def record(self) -> ProcessRecord:
        pid = None if self._child is None else self._child.pid
        program = self.program
        return ProcessRecord(
            *(program.role, program.name, pid, dict(self.ports), self.restarts),
            drained=self._is_out,
            fault=self.fault,
            last_end=self._last_end,
        )

    @property
    def log(self) -> Path:
        return self._log

    def mesh_is_ready(self) -> None:
        """The mesh has been ready: from now on a death is mended for as long as it takes."""
        self._starting_up = False

    async def keep(self) -> None:
        """Run until `stop`. Cancelled, it kills the process.

        Raises:
            ProcessFailed: it keeps dying before the mesh was ready, or refuses its settings;
                `failure` instead if it can be missed.
        """
        while not self.ended.is_set():
            began_s = time.monotonic()
            cause, is_hopeless = await self._try_run()
            if self.ended.is_set():
                return
            if self._state_dir.is_marked_drained(self.program.name):
                await self._stay_out()
            else:
                ran_s = time.monotonic() - began_s
                await self._mourn(cause, is_hopeless=is_hopeless, ran_s=ran_s)

    async def stop(self, *, deadline_s: float) -> bool:
        """End it for good; False if it had to be killed."""
        self.ended.set()
        return self._child is None or await self._child.stop(deadline_s=deadline_s)

    def kill(self) -> None:
        """End it for good, now."""
        self.ended.set()
        if self._child is not None:
            self._child.kill()

    async def replace(self, why: str) -> None:
        """End this run; another is started."""
        if (child := self._child) is not None:
            self._why_replaced = why
            await child.stop(deadline_s=_LAST_CHANCE_S)

    def see(self, fault: str) -> None:
        """Take note of why it does not do its work; empty where it does."""
        if fault != self.fault:
            self.fault = fault
            self._report(self.program.name, fault or "is well again")
            self._on_change()

    async def _try_run(self) -> tuple[str, bool]:
        """How the run ended, and whether the next would end so too."""
        try:
            status = await self._run()
        except OSError as error:  # its files cannot be written, or there is no memory for it
            return f"cannot be started: {error}", False
        if self._why_replaced:
            why, self._why_replaced = self._why_replaced, ""
            return f"was ended: {why}", False
        cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return cause, status == _BAD_SETTINGS

    async def _run(self) -> int:
        trouble = disk_problem(self._state_dir.folder, needed_bytes=NEEDED_BY_PROCESS_BYTES)
        if trouble is not None:
            # Why not tried: it would run, and could tell nobody where it listens.
            raise OSError(str(trouble))
        self.program.prepare()
        child = await Child.start(self.program.argv(), log=self._log, folder=self._folder())
        self._child = child
        if self.ended.is_set():
            child.kill()
        self._on_change()
        try:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._find_ports(child))
                status = await child.wait()
                looking.cancel()
                return status
        finally:
            child.kill()
            await child.wait()
            self._child, self.ports = None, {}
            self.listening.clear()
            self._on_change()

    def _folder(self) -> Path | None:
        """Where the program runs: where we do, or in the state directory once that is removed."""
        try:
            Path.cwd()
        except OSError:
            # Why not there: a program that looks up its current directory fails.
            return self._state_dir.folder
        # Why not named: where we may be, but not enter again (after sudo), it would not start.
        return None

    async def _find_ports(self, child: Child) -> None:
        while (ports := await self.program.read_ports(child.pid)) is None:
            await asyncio.sleep(_LOOK_EVERY_S)
        self.ports = ports
        self.listening.set()
        self._on_change()

    async def _stay_out(self) -> None:
        """Until it is let in, or the mesh ends."""
        name = self.program.name
        self._report(name, f"has left and is kept out until `headrace drain {name} --undo`")
        self._is_out = True
        self._on_change()
        while self._state_dir.is_marked_drained(name) and not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self.ended.wait()
        self._is_out = False

    async def _mourn(self, cause: str, *, is_hopeless: bool, ran_s: float) -> None:
        self._backoff = self._backoff.after_death(ran_s=ran_s)
        gives_up = is_hopeless or self._backoff.deaths >= _DEATHS_AT_START
        if self._starting_up and gives_up and self.failure is None:
            failure = ProcessFailed(self.program.name, cause, self._log)
            if not self._can_be_missed:
                raise failure
            self.failure = failure
        self.restarts += 1
        self._last_end = cause
        wait_s = _HOPELESS_WAIT_S if is_hopeless else self._backoff.wait_s
        self._report(self.program.name, f"{cause}; starts again in {wait_s:g} s")
        self._on_change()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.ended.wait()

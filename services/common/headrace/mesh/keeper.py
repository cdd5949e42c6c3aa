"""Keeps one program running: starts it, learns its ports, starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from headrace.mesh.backoff import Backoff
from headrace.mesh.child import Child
from headrace.mesh.failures import ProcessFailed
from headrace.mesh.home import Home, ProcessRecord
from headrace.mesh.program import Program

_LOOK_EVERY_S = 0.05
_BAD_SETTINGS = 2
"""Exit status that every service has for settings it refuses; the next start would too."""
_DEATHS_AT_START = 3


class Keeper:
    """One program of the mesh.

    Args:
        on_change: called when pid or ports change.
        report: told in words what happened.
    """

    def __init__(
        self,
        program: Program,
        home: Home,
        *,
        on_change: Callable[[], None],
        report: Callable[[str, str], None],
    ) -> None:
        self.program = program
        self.ports: dict[str, int] = {}
        self.restarts = 0
        self.listening = asyncio.Event()
        """Set while its ports are known."""
        self._home = home
        self._log = home.log(program.name)
        self._child: Child | None = None
        self._backoff = Backoff()
        self._ended = asyncio.Event()
        self._starting_up = True
        self._is_out = False
        self._on_change = on_change
        self._report = report

    @property
    def record(self) -> ProcessRecord:
        pid = None if self._child is None else self._child.pid
        program = self.program
        return ProcessRecord(
            program.role, program.name, pid, dict(self.ports), self.restarts, self._is_out
        )

    @property
    def log(self) -> Path:
        return self._log

    def started_up(self) -> None:
        """The mesh has been ready: from now on a death is mended for as long as it takes."""
        self._starting_up = False

    async def keep(self) -> None:
        """Run until `stop`. Cancelled, it kills the process.

        Raises:
            ProcessFailed: it keeps dying before the mesh was ready, or refuses its settings.
        """
        while not self._ended.is_set():
            began_s = time.monotonic()
            status = await self._run()
            if self._ended.is_set():
                return
            if self._home.is_kept_out(self.program.name):
                await self._stay_out()
            else:
                await self._mourn(status, ran_s=time.monotonic() - began_s)

    async def stop(self, *, deadline_s: float) -> bool:
        """End it for good; False if it had to be killed."""
        self._ended.set()
        return self._child is None or await self._child.stop(deadline_s=deadline_s)

    def kill(self) -> None:
        """End it for good, now."""
        self._ended.set()
        if self._child is not None:
            self._child.kill()

    async def _run(self) -> int:
        self.program.prepare()
        child = await Child.start(self.program.argv(), log=self._log, folder=Path.cwd())
        self._child = child
        if self._ended.is_set():
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
        while self._home.is_kept_out(name) and not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._ended.wait()
        self._is_out = False

    async def _mourn(self, status: int, *, ran_s: float) -> None:
        self._backoff = self._backoff.after_death(ran_s=ran_s)
        cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        gives_up = status == _BAD_SETTINGS or self._backoff.deaths >= _DEATHS_AT_START
        if self._starting_up and gives_up:
            raise ProcessFailed(self.program.name, cause, self._log)
        self.restarts += 1
        self._report(self.program.name, f"{cause}; starts again in {self._backoff.wait_s:g} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.wait_s):
                await self._ended.wait()

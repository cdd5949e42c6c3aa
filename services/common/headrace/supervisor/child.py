"""One run of one program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_LEASH = Path(__file__).with_name("parent_watch.py")


class Child:
    """A program in a session of its own, which ends when this process does.

    Its own session, so that Ctrl-C on the terminal reaches only the supervisor, which then
    ends the processes in their order. `start` belongs on the main thread: the kernel ties the
    child's life to the thread that started it.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, argv: Sequence[str], *, log: Path, folder: Path | None = None) -> Child:
        """Start a program whose output is appended to `log`. `argv[0]` is an absolute path.

        `folder`: the current directory of the program; None: that of this process.
        """
        leash = (sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()))
        with _opened(log) as output:
            process = await asyncio.create_subprocess_exec(
                *leash,
                *argv,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit status; negative for a signal."""
        return await self._process.wait()

    def terminate(self) -> None:
        """Ask it to end; a no-op if it has."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """End it, and all that it started, now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, *, deadline_s: float) -> bool:
        """Ask it to end and wait; kill it at the deadline. False if it came to that."""
        self.terminate()
        try:
            async with asyncio.timeout(deadline_s):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        return True


def _opened(log: Path) -> IO[bytes]:
    """The log, or nowhere where it cannot be: a full disk must not keep a program from running."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError:
        return open(os.devnull, "ab")  # the caller closes it

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

_PARENT_WATCH = Path(__file__).with_name("parent_watch.py")


class Child:
    """A running program in a session of its own, which the kernel kills when this process dies.

    The session keeps Ctrl-C on the terminal from reaching the program: the supervisor alone gets
    it, and ends the processes in order. Call `start` on the main thread, because the kernel ties
    the child's life to the thread that started it.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, argv: Sequence[str], *, log: Path, folder: Path | None = None) -> Child:
        """Start a program whose output is appended to `log`.

        Args:
            argv: the first is an absolute path.
            folder: the program's current directory; None: that of this process.
        """
        parent_watch = (sys.executable, "-I", "-S", str(_PARENT_WATCH), str(os.getpid()))
        with _open_log(log) as output:
            process = await asyncio.create_subprocess_exec(
                *parent_watch,
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
        """Wait for the end; return the exit status, negative for a signal."""
        return await self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM, unless the program has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def reload(self) -> None:
        """Send SIGHUP, unless the program has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill the program and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, *, deadline_s: float) -> bool:
        """Send SIGTERM and wait; kill it after `deadline_s` and return False."""
        self.terminate()
        try:
            async with asyncio.timeout(deadline_s):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        return True


def _open_log(log: Path) -> IO[bytes]:
    """Open the log for appending; on a full disk /dev/null, so that the program can run."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError:
        return open(os.devnull, "ab")  # the caller closes it

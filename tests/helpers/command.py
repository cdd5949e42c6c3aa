"""The `headrace` command, run as a user runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND_S = 50.0


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


def command(*arguments: str) -> tuple[str, ...]:
    # -P: the installed command does not look for modules in the current directory, either.
    return (sys.executable, "-P", "-m", "headrace", *arguments)


async def headrace(
    *arguments: str, folder: Path, given: str | None = None, within_s: float = COMMAND_S
) -> Ran:
    """Run to its end in `folder`, with `given` as its standard input."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate(None if given is None else given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def processes_with(text: str) -> list[int]:
    """Other processes of this machine that have `text` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(int(entry.name))
    return found

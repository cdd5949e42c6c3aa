"""What `headrace up` shows while a mesh comes up and while it stays."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_DONE = ("ready", "listens", "a token")
"""How facts begin after which nothing more is waited for."""


def _print(line: str) -> None:
    # Why: where this is a file on a disk that is full, the mesh must not end of it.
    with contextlib.suppress(OSError):
        print(line, flush=True)


class ProgressDisplay(Protocol):
    """Something that shows what becomes of a mesh's processes."""

    def progress(self, name: str, fact: str) -> None: ...

    def ready(self, url: str) -> None: ...

    def failed(self, reason: str) -> None: ...

    def settle(self) -> None:
        """The mesh is up, or will not be: from now on facts are single lines."""
        ...


class PlainLines:
    """For logs and pipes: a line per fact."""

    def progress(self, name: str, fact: str) -> None:
        _print(f"{name}: {fact}")

    def ready(self, url: str) -> None:
        """The welcome says it."""

    def failed(self, reason: str) -> None:
        """The command's last line says it."""

    def settle(self) -> None:
        """They are lines already."""


class LiveTable:
    """For terminals: a row per process, with a clock while it is on its way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._facts: dict[str, str] = {}
        self._settled = False
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8)
        self._live.start()

    def progress(self, name: str, fact: str) -> None:
        if self._settled:
            self._console.print(Text(f"{name}: {fact}", style="dim"))
        else:
            self._facts[name] = fact

    def ready(self, url: str) -> None:
        """The welcome says it."""

    def failed(self, reason: str) -> None:
        """The command's last line says it."""

    def settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._live.stop()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, fact in self._facts.items():
            done = fact.startswith(_DONE)
            mark = Text("✓", style="green") if done else self._undone()
            elapsed = "" if done else f"… {time.monotonic() - self._began_s:.0f} s"
            table.add_row(mark, name, Text(f"{fact}{elapsed}", style="dim"))
        return table

    def _undone(self) -> RenderableType:
        return Text("✗", style="red") if self._settled else Spinner("dots")


class ParentPipe:
    """For a detached mesh: facts go to the process that waits for it, as JSON lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def progress(self, name: str, fact: str) -> None:
        _print(f"{name}: {fact}")
        self._tell({"name": name, "fact": fact})

    def ready(self, url: str) -> None:
        self._tell({"ready": url})

    def failed(self, reason: str) -> None:
        self._tell({"failed": reason})

    def settle(self) -> None:
        """Nobody waits any longer; from now on facts go to the log alone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell(self, message: dict[str, str]) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            # Who waited has gone; the mesh stays.
            self.settle()

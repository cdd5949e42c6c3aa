"""What `headrace up` shows while a mesh starts and runs."""

from __future__ import annotations

import contextlib
import json
import os
import time

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_DONE = ("ready", "listens", "a token")
"""Beginnings of the facts after which a process has started."""


def _print(line: str) -> None:
    # Why: where this is a file on a full disk, the mesh must not end.
    with contextlib.suppress(OSError):
        print(line, flush=True)


class ProgressDisplay:
    """Shows progress as a line for each fact, for logs and pipes."""

    def progress(self, name: str, fact: str) -> None:
        _print(f"{name}: {fact}")

    def ready(self, url: str) -> None:
        """Show that the mesh is ready; on a terminal the welcome does."""

    def failed(self, reason: str) -> None:
        """Show that it failed; on a terminal the command's last line does."""

    def finish(self) -> None:
        """The start is over: from now on facts are single lines."""


class LiveTable(ProgressDisplay):
    """For terminals: a row for each process, with its time while it starts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._facts: dict[str, str] = {}
        self._is_finished = False
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8)
        self._live.start()

    def progress(self, name: str, fact: str) -> None:
        if self._is_finished:
            self._console.print(Text(f"{name}: {fact}", style="dim"))
        else:
            self._facts[name] = fact

    def finish(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._live.stop()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, fact in self._facts.items():
            done = fact.startswith(_DONE)
            mark = Text("✓", style="green") if done else self._pending()
            elapsed = "" if done else f"… {time.monotonic() - self._began_s:.0f} s"
            table.add_row(mark, name, Text(f"{fact}{elapsed}", style="dim"))
        return table

    def _pending(self) -> RenderableType:
        return Text("✗", style="red") if self._is_finished else Spinner("dots")


class ParentPipe(ProgressDisplay):
    """For a mesh in the background: sends JSON lines to the command that waits for it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def progress(self, name: str, fact: str) -> None:
        _print(f"{name}: {fact}")
        self._send({"name": name, "fact": fact})

    def ready(self, url: str) -> None:
        self._send({"ready": url})

    def failed(self, reason: str) -> None:
        self._send({"failed": reason})

    def finish(self) -> None:
        """Close the pipe; from now on facts go to the log alone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _send(self, message: dict[str, str]) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            # The command was interrupted; the mesh stays.
            self.finish()


def display() -> ProgressDisplay:
    """Return the display for stdout."""
    console = Console()
    return LiveTable(console) if console.is_terminal else ProgressDisplay()

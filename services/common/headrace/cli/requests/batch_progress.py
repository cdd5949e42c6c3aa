"""Waits for the end of a batch, and shows on standard error how far it has come.

    batch_3k9x0c5p1m7q2z8v in_progress ━━━━━━━━━━━━━━ 1240/2000, 3 failed, 0:01:12 left

On a terminal this is one line that changes; in a log, a line for each change of the status, and
one every half a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import click
import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from headrace.cli.console.openai_api import answer_of
from headrace.errors import CapacityError

FINAL = ("completed", "failed", "expired", "cancelled")
LOOK_S = 1.0
_LINE_S = 30.0
_RATE_S = 60.0
"""Time left follows from the rows of the last minute."""


def wait_for_end(
    http: httpx.Client, batch: dict[str, Any], *, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Return a batch once it has ended, however often the mesh cannot be reached meanwhile."""
    with BatchProgress(batch["id"]) as shown:
        while True:
            shown.update(batch)
            if batch["status"] in FINAL:
                return batch
            sleep(LOOK_S)
            with suppress(httpx.TransportError, CapacityError):
                batch = answer_of(http.get(f"/v1/batches/{batch['id']}"))


class BatchProgress:
    """How far one batch has come; shown for the length of a `with`."""

    def __init__(
        self,
        batch_id: str,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = console or Console(stderr=True)
        self._batch_id, self._clock = batch_id, clock
        self._is_live = console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"))
        self._bar = Progress(
            *columns,
            console=console,
            disable=not self._is_live,
            get_time=clock,
            speed_estimate_period=_RATE_S,
        )
        self._task: TaskID = self._bar.add_task(batch_id, total=None, rows="")
        self._status, self._next_line_s = "", 0.0

    def __enter__(self) -> BatchProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, batch: dict[str, Any]) -> None:
        """Show a batch as `/v1/batches` has it."""
        counts, status = batch["request_counts"], batch["status"]
        if counts["total"]:
            done = counts["completed"] + counts["failed"]
            self._bar.update(self._task, total=counts["total"], completed=done)
        rows = self._rows(counts)
        self._bar.update(self._task, description=f"{self._batch_id} {status}", rows=rows)
        if not self._is_live and (status != self._status or self._clock() >= self._next_line_s):
            click.echo(f"{self._batch_id}: {', '.join(filter(None, (status, rows)))}", err=True)
            self._next_line_s = self._clock() + _LINE_S
        self._status = status

    def _rows(self, counts: dict[str, int]) -> str:
        if not counts["total"]:
            return ""
        facts = [f"{counts['completed'] + counts['failed']}/{counts['total']} rows"]
        if counts["failed"]:
            facts.append(f"{counts['failed']} failed")
        left_s = self._bar.tasks[self._task].time_remaining
        if left_s:
            facts.append(f"{timedelta(seconds=round(left_s))} left")
        return ", ".join(facts)

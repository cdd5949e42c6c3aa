"""What the commands of usage have in common: times, formats, and rows of values in each."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape

from headrace.cli.console import terminal
from headrace.cli.console.options import json_option
from headrace.cli.console.spans import Span

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, object]


class Time(click.ParamType[Timestamp]):
    """A time: 2026-11-01, 2026-11-01T12:00, both in UTC unless they say else, or 24h ago."""

    name = "time"

    def convert(
        self, value: str | Timestamp, param: click.Parameter | None, ctx: click.Context | None
    ) -> Timestamp:
        if isinstance(value, Timestamp):
            return value
        found = Timestamp()
        try:
            found.FromDatetime(_time_of(value))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write one as 2026-11-01, 2026-11-01T12:00 or 24h")
        return found


def _time_of(value: str) -> datetime:
    if value[-1:] in "smhdw" and value[:-1].isdecimal():
        span: timedelta = Span().convert(value, None, None)
        return datetime.now(UTC) - span
    time = datetime.fromisoformat(value)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def range_options(command: F) -> F:
    """Add `--since` and `--until`, of the ends of requests."""
    until = click.option("--until", type=Time(), help="Only what ended before this time.")
    since = click.option(
        "--since", type=Time(), help="Only what ended from this time on, as 2026-11-01 or 24h."
    )
    return since(until(command))


def format_options(command: F) -> F:
    """Add `--json` and `--csv`; the command gets `as_json` and `as_csv`."""
    return json_option(click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")(command))


class Printer:
    """Prints rows as they come: CSV or, of a list, JSON line by line; else a table at the end."""

    def __init__(self, columns: Sequence[str], *, as_json: bool, as_csv: bool) -> None:
        """
        Raises:
            UsageError: both formats are chosen.
        """
        if as_json and as_csv:
            raise click.UsageError("give --json or --csv")
        self._columns, self._as_json, self._as_csv = columns, as_json, as_csv
        self._table = terminal.table(*(name.replace("_", " ") for name in columns))
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._count = 0
        if as_csv:
            self._writer.writerow(columns)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            values = [row[name] for name in self._columns]
            if self._as_json:
                start = "," if self._count else "["
                click.echo(start + json.dumps({name: row[name] for name in self._columns}))
            elif self._as_csv:
                self._writer.writerow("" if value is None else value for value in values)
            else:
                self._table.add_row(*(escape(_shown(value)) for value in values))
            self._count += 1

    def finish(self, *, nothing: str) -> None:
        """Print what is left; `nothing` where there was no row."""
        if self._as_json:
            click.echo("]" if self._count else "[]")
        elif not self._as_csv:
            terminal.console().print(self._table if self._count else nothing)


def warn_of_unpriced(models: Sequence[str]) -> None:
    """Say of which models the use costs nothing for want of a price; beside what is printed."""
    if models:
        names = ", ".join(models)
        click.echo(
            f"without a price, so that its use costs nothing: {names}"
            " (headrace price set MODEL ... sets one, for what comes)",
            err=True,
        )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)

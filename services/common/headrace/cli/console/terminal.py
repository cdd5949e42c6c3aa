"""Console output: tables, values, and lines that appear when something changes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PIPED_COLUMNS = 200


def console() -> Console:
    """Return the console of stdout. Into a pipe, lines are as long as they need to be."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PIPED_COLUMNS)


def table(*columns: str) -> Table:
    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        found.add_column(column, overflow="fold")
    return found


def print_fields(fields: Mapping[str, object], *, as_json: bool) -> None:
    """Print what there is of one thing: as JSON, or a line for each field."""
    if as_json:
        click.echo(json.dumps(fields, indent=1))
        return
    found = table("", "")
    found.show_header = False
    for name, value in fields.items():
        found.add_row(name.replace("_", " "), escape(_shown(value)))
    console().print(found)


def _shown(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(str, value))
        case dict():
            return " ".join(f"{name}={each}" for name, each in value.items())
    return str(value)


def seconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s:.2f} s"


class ChangeLines:
    """Prints a process's state, a line for each change."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, ""

    def update(self, state: str) -> None:
        """Print the state if it is new; an empty one is unknown."""
        if state not in ("", self._last):
            click.echo(f"{self._name}: {state}")
            self._last = state

"""How the command prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_PIPED_COLUMNS = 200


def console() -> Console:
    """Stdout. Where it is no terminal, lines are as long as they need to be."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PIPED_COLUMNS)


def table(*columns: str) -> Table:
    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        found.add_column(column, overflow="fold")
    return found

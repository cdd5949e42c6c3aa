"""Which rows of usage are billed: all, but of each request of a batch's line only one. Pure.

A line may be computed several times: its run failed for want of capacity and was repeated, or its
answer was lost with the process that waited for it. What is billed is the first run that is
recorded with a regular end; the others are rows that cost nothing, and are in no sum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from headrace_control.base.accounts.usage import Values

BatchLine = tuple[str, int, int]
"""Batch, line, and which of the requests of this line: one with several prompts has several."""
NOT_OF_A_LINE = -1
"""In place of the number of a line's request."""


def line_of(row: Mapping[str, Any]) -> BatchLine | None:
    """Return of which request of which line a row can be the bill; None: it is of no batch, or had
    no regular end."""
    if not row["batch_id"] or row["code"]:
        return None
    # As gateways name them: batch_7_12, its second run batch_7_12_1, its further requests
    # batch_7_12-1, batch_7_12-2.
    name = row["request_id"].removeprefix(f"{row['batch_id']}_{row['batch_line']}")
    _, _, number = name.rpartition("-")
    is_number = number.isascii() and number.isdecimal() and len(number) < 10
    return row["batch_id"], row["batch_line"], int(number) if "-" in name and is_number else 0


def mark_billed(rows: Sequence[Values], billed: Collection[BatchLine]) -> None:
    """Give rows the columns `billed` and `billed_part`.

    Args:
        rows: in the order in which they are recorded.
        billed: those of their lines that have a billed row already.
    """
    found = set(billed)
    for row in rows:
        line = line_of(row)
        row["billed"] = not row["batch_id"] or (line is not None and line not in found)
        row["billed_part"] = line[2] if line is not None and row["billed"] else NOT_OF_A_LINE
        if line is not None:
            found.add(line)

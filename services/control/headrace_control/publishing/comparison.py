"""What has to be published so that a table on the bus holds what the database says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from headrace.bus.subjects import TABLE_STAMP
from headrace_control.base.records import OutboxRow


def difference(expected: Mapping[str, bytes], held: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Return the rows to put, and None for those to delete, by key; the stamp is no row."""
    surplus = held.keys() - expected.keys() - {TABLE_STAMP}
    changes: dict[str, bytes | None] = dict.fromkeys(sorted(surplus))
    changes |= {key: row for key, row in expected.items() if held.get(key) != row}
    return changes


def runs(rows: Iterable[OutboxRow], *, longest: int) -> Iterator[Sequence[OutboxRow]]:
    """Cut rows, in their order, into runs whose rows may be published at the same time.

    The rows of a run are of one table and of different keys: a tenant comes before its keys, and
    what a key was before what it is.
    """
    run: dict[str, OutboxRow] = {}
    table = ""
    for row in rows:
        if run and (row.table != table or row.key in run or len(run) == longest):
            yield tuple(run.values())
            run = {}
        run[row.key], table = row, row.table
    if run:
        yield tuple(run.values())

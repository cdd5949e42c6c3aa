"""One watched table, parsed: what of it is believed when the broker has lost something. Pure.

on_table  k1, k2, stamp 100     both rows are in force
on_row    k1 deleted            k1 is revoked
on_table  nothing               the broker lost its store: k2 stays, k1 stays revoked
on_row    k3                    control writes the table again; k3 is in force, k2 still
on_row    stamp 130             control has written all: k3 alone is in force
on_table  k1, k3, stamp 90      an old copy of the store: nothing changes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from headrace.bus.subjects import TABLE_STAMP
from headrace.internal.v1.access_pb2 import TableStamp

R = TypeVar("R")

OnUnreadable = Callable[[str, str], None]


class KnownRows(Generic[R]):
    """Rows by their keys in the table.

    What control writes while the table is watched is believed at once. A table that was read whole
    is believed if it has a stamp no older than the last one: then it is what control has in its
    database.
    """

    def __init__(self, parse: Callable[[bytes], R], on_unreadable: OnUnreadable) -> None:
        """
        Args:
            parse: makes a row; raises DecodeError or ValueError. Such a row counts as absent.
            on_unreadable: is called with its key and the error.
        """
        self._parse, self._on_unreadable = parse, on_unreadable
        self.rows: Mapping[str, R] = {}
        self.stamp_ms: int | None = None
        """When control last found the rows complete; None: they never were."""
        self._known: dict[str, R] = {}
        self._pending: dict[str, R] | None = {}
        """Rows of a table that is not believed yet, and what has been written since."""
        self._revoked: dict[str, int] = {}
        """Rows that were deleted, with the stamp that the table had then."""

    @property
    def is_whole(self) -> bool:
        """Return whether the table has been complete once."""
        return self.stamp_ms is not None

    def was_deleted(self, key: str) -> bool:
        """Return whether the row was deleted lately."""
        return key in self._revoked

    def on_table(self, rows: Mapping[str, bytes]) -> None:
        """Read the whole table."""
        stamp_ms = self._stamp(rows.get(TABLE_STAMP))
        parsed = ((key, self._row(key, row)) for key, row in rows.items() if key != TABLE_STAMP)
        self._pending = {key: row for key, row in parsed if row is not None}
        if stamp_ms is not None:
            self._adopt(stamp_ms)

    def on_row(self, key: str, row: bytes | None) -> None:
        """Read one change; None: the row was deleted."""
        if key == TABLE_STAMP:
            if (stamp_ms := self._stamp(row)) is not None:
                self._adopt(stamp_ms)
            return
        parsed = None if row is None else self._row(key, row)
        # A row that cannot be read is none: what it replaces may be more than it grants.
        for rows in (self._known, self._pending):
            if rows is not None and parsed is None:
                rows.pop(key, None)
            elif rows is not None and parsed is not None:
                rows[key] = parsed
        if parsed is None:
            self._revoked[key] = self.stamp_ms or 0
        else:
            self._revoked.pop(key, None)
        if self.is_whole:
            self.rows = self._known

    def _adopt(self, stamp_ms: int) -> None:
        """Believe the rows, unless what is known is newer."""
        known_ms = self.stamp_ms or 0
        if stamp_ms < known_ms:
            return
        if self._pending is not None:
            kept = self._pending.items()
            self._known = {key: row for key, row in kept if not self._is_revoked_at(key, stamp_ms)}
            self._pending = None
        self._revoked = {key: at_ms for key, at_ms in self._revoked.items() if at_ms >= stamp_ms}
        self.stamp_ms, self.rows = stamp_ms, self._known

    def _is_revoked_at(self, key: str, stamp_ms: int) -> bool:
        """Return whether the row was deleted after control stamped the table."""
        return self._revoked.get(key, -1) >= stamp_ms

    def _row(self, key: str, row: bytes) -> R | None:
        try:
            return self._parse(row)
        except (DecodeError, ValueError) as error:
            self._on_unreadable(key, str(error))
            return None

    def _stamp(self, row: bytes | None) -> int | None:
        if row is None:
            return None
        try:
            return TableStamp.FromString(row).time_ms
        except DecodeError as error:
            self._on_unreadable(TABLE_STAMP, str(error))
            return None

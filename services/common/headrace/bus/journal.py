"""The journal of the quota keeper, as the keeper uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.bus.errors import BusError


class JournalMoved(BusError):
    """Another process has appended to the journal: this one must read it again before it may."""


@dataclass(frozen=True, slots=True)
class JournalContents:
    entries: list[bytes]
    """The oldest first."""
    last: int
    """Sequence of the newest entry that was ever appended; 0: none was."""


class Journal(Protocol):
    """QuotaEntries, which one process appends at a time.

    An entry is appended only behind the one that its writer knows as the last, so whoever has been
    replaced finds that out, however long it was away.
    """

    async def append_entry(self, entry: bytes, *, after: int) -> int:
        """Append an entry if the last one has this sequence; return its own.

        Raises:
            JournalMoved: it has another; nothing was appended.
            StoreRefused: the broker answers that it cannot store it.
            BusUnavailable: it is not known to be appended. It may be, even later, until another
                entry is.
        """
        ...

    async def read_journal(self) -> JournalContents:
        """Return all that the journal holds.

        Raises:
            JournalMoved: entries were deleted meanwhile; read it again.
            BusUnavailable: the broker is away.
        """
        ...

    async def delete_entries(self, *, before: int) -> None:
        """Delete all entries before this sequence. Raises as `read_journal`."""
        ...

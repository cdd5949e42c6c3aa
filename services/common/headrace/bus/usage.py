"""The stream of usage records, as the services use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

KEEPER = "keeper"
"""Reader of the stream whose position `purge_usage` respects: the quota keeper."""


@dataclass(frozen=True, slots=True)
class UsagePosition:
    """A message of the stream. A reader keeps the last one that it has applied."""

    stream: str
    """When the stream was created. One that was lost and made again, or restored from a backup,
    has another time, and its sequences mean nothing in this one. One that a power failure has put
    back, whose sequences are used again, keeps its time, and gets a name behind it."""
    sequence: int
    stored_at: str = field(default="", compare=False)
    """When the broker stored this message, by which a reader that was there notices that it is
    another one since a power failure; empty: not known."""


@dataclass(frozen=True, slots=True)
class StoredUsage:
    position: UsagePosition
    payload: bytes
    """UsageRecords: at least one, and as many as were published together."""


@dataclass(frozen=True, slots=True)
class UsageState:
    last: UsagePosition
    """The newest message that was ever stored; sequence 0: none was."""
    messages: int
    """Not purged yet."""
    stored_bytes: int
    max_bytes: int
    oldest_age_s: float
    """Of the oldest message that is not purged; 0 if there is none."""
    max_age_s: float
    """Older messages are removed, read or not."""


@dataclass(frozen=True, slots=True)
class RequestSources:
    """`UsageRecord.source` of each message in the stream of requests.

    What a backup held keeps the source that it had: a request that had ended since is settled
    again, as the same row. What comes after the restoration has another one, although its sequences
    may have been in use before. For example, with two restorations, of 100 and of 150 messages:

        former   ((100, "requests:2026-11-01..."), (150, "requests:2026-11-02..."))
        current  "requests:2026-11-03..."
        of(100), of(101), of(151)   "...-01...", "...-02...", "...-03..."
    """

    current: str
    former: tuple[tuple[int, str], ...] = ()
    """Last sequence and source, rising."""

    def of(self, sequence: int) -> str:
        return next((name for last, name in self.former if sequence <= last), self.current)


class UsageStream(Protocol):
    """UsageRecords, from the models' leaders to control and the quota keeper.

    Each reader reads all of it by position, and acknowledges nothing. A record may come twice, in
    equal or different company: `source` and `sequence` name it. What both readers have applied is
    purged by control; while one of them is away the stream keeps seven days, or 4 GiB.
    """

    async def publish_usage(self, records: bytes) -> None:
        """Store UsageRecords. Equal bytes are stored once within two minutes.

        Raises:
            StoreRefused: the stream is full.
            BusUnavailable: they are not known to be stored; repeat.
        """
        ...

    async def usage_after(
        self, position: UsagePosition | None, *, max_messages: int, timeout_s: float
    ) -> list[StoredUsage]:
        """Return what follows a position, oldest first; none if none came in `timeout_s`.

        None, or a position in a former stream, is before the oldest message there is. So is a
        position that is past the end of the stream, or of another message: the stream was put back.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...

    async def usage_state(self) -> UsageState:
        """Return how full the stream is. Raises as `usage_after`."""
        ...

    async def put_usage_position(self, reader: str, position: UsagePosition) -> None:
        """Remember that this reader, `KEEPER`, needs no message up to there. Raises as
        `usage_after`."""
        ...

    async def purge_usage(self, position: UsagePosition) -> None:
        """Remove what precedes this position, itself included, as far as the keeper has read it
        too. Raises as `usage_after`."""
        ...

    async def request_sources(self) -> RequestSources:
        """Return where the messages of the stream of requests are from.

        Raises:
            BusUnavailable: the broker is away, or the stream is not there.
        """
        ...

"""Days and months of a time zone, whose clocks change. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY_MS = 86_400_000


class Date(NamedTuple):
    day: int
    """As `date.toordinal`."""
    month: int
    """Since January of the year 0."""

    def latest(self, other: Date) -> Date:
        return Date(max(self.day, other.day), max(self.month, other.month))


class Calendar:
    """The calendar of one time zone.

    A day begins when a clock of the zone first shows its midnight, or what follows where that is
    skipped. Clocks that are put back over midnight do not bring the day before back.
    """

    def __init__(self, zone: str = "") -> None:
        """
        Args:
            zone: its IANA name; empty: UTC.

        Raises:
            ValueError: there is no such time zone.
        """
        try:
            self._zone = ZoneInfo(zone or "UTC")
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"unknown time zone {zone!r}") from error
        self._today = Date(0, 0)
        self._known_from_ms = self._known_until_ms = 0
        self._month_starts: tuple[int, int] = (-1, 0)

    def date(self, at_ms: int) -> Date:
        """Return the day and month of a Unix time."""
        if not self._known_from_ms <= at_ms < self._known_until_ms:
            local = datetime.fromtimestamp(at_ms // 1000, self._zone)
            self._today = Date(local.toordinal(), local.year * 12 + local.month - 1)
            self._known_from_ms = at_ms
            self._known_until_ms = self._midnight_ms(self._today.day + 1)
        return self._today

    def start_of_day_ms(self, day: int) -> int:
        """Return the Unix time at which the day begins."""
        return self._known_until_ms if day == self._today.day + 1 else self._midnight_ms(day)

    def start_of_month_ms(self, month: int) -> int:
        """Return the Unix time at which the month begins."""
        if self._month_starts[0] != month:
            first = date(month // 12, month % 12 + 1, 1)
            self._month_starts = (month, self._midnight_ms(first.toordinal()))
        return self._month_starts[1]

    def _midnight_ms(self, day: int) -> int:
        # Why fold 0: the first of two midnights; of one that is skipped, the moment of the change.
        local = datetime.combine(date.fromordinal(day), datetime.min.time(), self._zone)
        return round(local.timestamp()) * 1000


def earliest_date(at_ms: int) -> Date:
    """Return a date that is over in every time zone."""
    past = datetime.fromtimestamp((at_ms - 2 * DAY_MS) // 1000, UTC)
    return Date(past.toordinal(), past.year * 12 + past.month - 1)

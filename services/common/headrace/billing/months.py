"""Months of a time zone, as 2026-11. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

_MONTH = re.compile(r"(2[0-9]{3})-(0[1-9]|1[0-2])", re.ASCII)


def checked_month(text: str) -> str:
    """Return a month.

    Raises:
        ValueError: it is none.
    """
    if not _MONTH.fullmatch(text):
        raise ValueError(f"{text[:20]!r} is no month; write one as 2026-11")
    return text


def month_at(time_ms: int, zone: str) -> str:
    """Return the month of a time, in Unix milliseconds, in a zone."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).astimezone(ZoneInfo(zone)).strftime("%Y-%m")


def month_after(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{year + number // 12}-{number % 12 + 1:02d}"


def begin_ms(month: str, zone: str) -> int:
    """Return when a month begins in a zone, in Unix milliseconds."""
    year, number = map(int, month.split("-"))
    return int(datetime(year, number, 1, tzinfo=ZoneInfo(zone)).timestamp()) * 1000


def end_ms(month: str, zone: str) -> int:
    """Return when a month ends, which is when the next one begins."""
    return begin_ms(month_after(month), zone)

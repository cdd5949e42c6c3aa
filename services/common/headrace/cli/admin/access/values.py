"""What the commands of access have in common: values of options, JSON, and lists in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import click
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.bus.subjects import PRIORITIES
from headrace.priorities import priority_name
from headrace.v1.common_pb2 import Priority

_PAGE = 1000

priority_choice = click.Choice(PRIORITIES)


class Label(click.ParamType[tuple[str, str]]):
    """A label, as team=search."""

    name = "name=value"

    def convert(
        self,
        value: str | tuple[str, str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, separator, content = value.partition("=")
        if not name or not separator:
            self.fail(f"{value!r} is no label; write one as team=search")
        return name, content


def priority_value(name: str | None) -> Priority.ValueType:
    return Priority.Value(f"PRIORITY_{name.upper()}") if name else Priority.PRIORITY_UNSPECIFIED


def shown_priority(value: Priority.ValueType) -> str | None:
    return priority_name(value) if value else None


def shown_time(message: Any, field: str) -> str | None:
    """Return a time of a message in RFC 3339; None if it has none."""
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    return time.ToJsonString()


def day_text(time: str | None) -> str:
    """Return a time in a table: to the minute, in UTC."""
    return "-" if time is None else f"{time[:16].replace('T', ' ')}Z"


def time_after(span: timedelta) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(datetime.now(UTC) + span)
    return found


def last_part(name: str) -> str:
    """Return the id in a resource's name: `acme` of `tenants/acme`."""
    return name.rpartition("/")[2]


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


P = TypeVar("P", bound=_Page)


async def pages(request_page: Callable[[int, str], Awaitable[P]]) -> AsyncIterator[P]:
    """Yield every page of a list; `request_page` gets its size and token."""
    token = ""
    while True:
        page = await request_page(_PAGE, token)
        yield page
        if not (token := page.next_page_token):
            return

"""Lists in pages: each begins behind the last item of the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.database.columns import String
from headrace_control.base import page_tokens
from headrace_control.base.records import Page

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Which page of a list is requested."""

    size: int = 0
    """At most 1000; 0: 100."""
    token: str = ""
    """`Page.next_page_token` of the page before; empty: the first page."""


FIRST_PAGE = PageOptions()


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that has pages."""

    name: str
    order: Sequence[sa.Column[Any]]
    """A unique key: no two items have the same values."""
    descending: bool = False

    async def page(
        self,
        connection: AsyncConnection,
        query: sa.Select[Any],
        options: PageOptions,
        record_of: Callable[[sa.Row[Any]], T],
    ) -> Page[T]:
        size = page_tokens.page_size(options.size)
        types = [str if isinstance(c.type, String) else int for c in self.order]
        after = page_tokens.start_after(options.token, self.name, types)
        if after is not None:
            key = sa.tuple_(*self.order)
            bound = sa.tuple_(*after, types=[column.type for column in self.order])
            query = query.where(key < bound if self.descending else key > bound)
        order = (column.desc() if self.descending else column.asc() for column in self.order)
        rows = (await connection.execute(query.order_by(*order).limit(size + 1))).all()
        items = tuple(record_of(row) for row in rows[:size])
        if len(rows) <= size:
            return Page(items)
        last = [rows[size - 1]._mapping[column.name] for column in self.order]
        return Page(items, page_tokens.page_token(self.name, last))

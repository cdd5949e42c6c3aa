"""Months are closed again and again, whatever the database does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from headrace.errors import ControlUnavailable
from headrace_control.base.accounts.statement import Statement
from headrace_control.metering.month_closing import close_months
from helpers.eventually import eventually


class _AwayAtFirst:
    def __init__(self) -> None:
        self.calls: list[tuple[timedelta, bool]] = []

    async def close_due(self, after: timedelta, *, by_key: bool = False) -> Sequence[Statement]:
        self.calls.append((after, by_key))
        if len(self.calls) == 1:
            raise ControlUnavailable("the database is away")
        return []


async def test_a_database_that_is_away_is_tried_again() -> None:
    statements = _AwayAtFirst()
    closing = asyncio.create_task(
        close_months(statements, timedelta(days=3), by_key=True, every_s=0.001)
    )
    await eventually(lambda: len(statements.calls) > 2)
    closing.cancel()
    await asyncio.wait({closing})
    assert set(statements.calls) == {(timedelta(days=3), True)}

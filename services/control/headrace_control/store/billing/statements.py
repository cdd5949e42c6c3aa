"""Statements in the database. An open one follows from the rows of usage; a closed one is kept as
it was, and what comes later is in the next one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.billing.currencies import digits_of, rounded
from headrace.billing.money import amount_text
from headrace.billing.months import begin_ms, end_ms, month_after, month_at
from headrace.errors import (
    ControlUnavailable,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    ResourceNotFound,
)
from headrace_control.base.accounts.statement import (
    Account,
    Line,
    Statement,
    closed_statement,
    content,
    difference,
    hash_of,
    in_order,
)
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import SYSTEM, Actor, Page
from headrace_control.store.billing.accounts import all_accounts, find_account
from headrace_control.store.billing.closed import closed_of, corrections_since
from headrace_control.store.billing.usage_lines import (
    NONE_CLOSED,
    Closed,
    covered,
    first_open_ms,
    has_late_rows,
    has_usage,
    last_recording,
    late_rows,
    of_month,
    usage_lines,
)
from headrace_control.store.database.billing_tables import corrections, statements, usage_position
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.transactions import Change, Database

log = logging.getLogger(__name__)

_STATEMENTS = Listing("statements", (statements.c.sequence,), descending=True)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A statement that was drawn up, and what it covers."""

    statement: Statement
    recording: int
    last_correction: int
    last: Closed
    """The one before."""


class Statements:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def account(self, tenant_id: str, account_id: str = "") -> Account:
        """Return the account of a tenant. As `find_account`."""
        async with self._database.reading() as connection:
            return await find_account(connection, tenant_id, account_id)

    async def get(self, account: Account, month: str, *, by_key: bool = False) -> Statement:
        """Return the statement of a month: as it was closed, or as it is now.

        Args:
            by_key: whether keys have lines of their own in an open statement.

        Raises:
            ResourceNotFound: the month has not begun, or is before one that is closed and had no
                usage of its own.
        """
        async with self._database.reading(snapshot=True) as connection:
            return (await self._drawn(connection, account, month, by_key=by_key)).statement

    async def list(self, account: Account, *, options: PageOptions = FIRST_PAGE) -> Page[Statement]:
        """Return a page of the closed statements of an account, the newest first."""
        query = sa.select(statements).where(statements.c.account_id == account.account_id)
        async with self._database.reading() as connection:
            return await _STATEMENTS.page(connection, query, options, _kept)

    async def close(
        self,
        account: Account,
        month: str,
        *,
        early: bool = False,
        by_key: bool = False,
        by: Actor,
    ) -> Statement:
        """Close a month: its statement is kept as it is now. Idempotent.

        Args:
            early: although the month goes on; what comes later is in the next one.
            by_key: whether keys have lines of their own.

        Raises:
            FailedPrecondition: the month goes on, or an earlier one with usage is open.
            ResourceNotFound: as `get`.
        """
        while True:
            async with self._database.reading(snapshot=True) as connection:
                drawn = await self._drawn(connection, account, month, by_key=by_key)
                if not drawn.statement.is_open:
                    return drawn.statement
                await self._check_closable(connection, account, drawn, early=early)
            async with self._database.changing(by) as change:
                # Why again: another process may have closed it meanwhile. What was recorded
                # meanwhile is behind `recording`, so it is in the next one.
                closed = await closed_of(change.connection, account)
                if (closed[-1] if closed else NONE_CLOSED) == drawn.last:
                    return await _keep(change, drawn)

    async def close_due(self, after: timedelta, *, by_key: bool = False) -> Sequence[Statement]:
        """Close every month with usage that ended so long ago, and return their statements.

        A fault with one account is logged, and keeps no other one's months open.
        """
        async with self._database.reading() as connection:
            accounts = await all_accounts(connection)
        done = []
        for account in accounts:
            try:
                while (month := await self._due(account, after)) is not None:
                    done.append(await self.close(account, month, by_key=by_key, by=SYSTEM))
            except ControlUnavailable:
                raise
            # Why all: as a time zone that the system's database has no more.
            except Exception:
                log.exception("statements.not_closed", extra={"tenant": account.tenant})
        return done

    async def differences(self) -> Sequence[tuple[Account, str]]:
        """Return what is wrong with closed statements, as sentences: they are not what was closed,
        or not what their rows come to. Statements whose rows are deleted are not compared."""
        found = []
        async with self._database.reading(snapshot=True) as connection:
            since_ms = await connection.scalar(sa.select(usage_position.c.rows_since_ms)) or 0
            for account in await all_accounts(connection):
                before = NONE_CLOSED
                for closed in await closed_of(connection, account):
                    is_it = statements.c.sequence == closed.sequence
                    row = (await connection.execute(sa.select(statements).where(is_it))).one()
                    try:
                        statement = _kept(row)
                    except InternalError as error:
                        found.append((account, error.message))
                    else:
                        rows = await covered(connection, account, closed, before)
                        if detail := difference(statement, *rows, rows_since_ms=since_ms):
                            found.append((account, detail))
                    before = closed
        return found

    async def correct(
        self, account: Account, month: str, amount_nanos: int, reason: str, *, by: Actor
    ) -> None:
        """Add an amount to the next statement that is closed, as a correction of a month.

        Raises:
            InvalidRequest: the amount is 0 or finer than the currency, or the month has not begun.
        """
        if not amount_nanos or rounded(amount_nanos, account.currency) != amount_nanos:
            digits = digits_of(account.currency)
            raise InvalidRequest(
                f"amount is {amount_text(amount_nanos)}; it must not be 0, and have at most"
                f" {digits} digits behind the point in {account.currency}",
                field="amount",
            )
        async with self._database.changing(by) as change:
            if begin_ms(month, account.time_zone) > change.now_ms:
                raise InvalidRequest(f"{month} has not begun", field="month")
            last = await change.connection.scalar(sa.select(sa.func.max(corrections.c.sequence)))
            values = {
                "sequence": (last or 0) + 1,
                "account_id": account.account_id,
                "month": month,
                "amount_nanos": amount_nanos,
                "reason": reason,
            }
            stamps = {"actor": by.name, "create_ms": change.now_ms}
            await change.execute(sa.insert(corrections).values(**values, **stamps))
            resource = f"tenants/{account.tenant}/statements/{month}"
            await change.record(
                "statements.correct", resource, tenant=account.tenant, details=values
            )

    async def _drawn(
        self, connection: AsyncConnection, account: Account, month: str, *, by_key: bool
    ) -> _Drawn:
        """Return the statement as it is now; of a closed month, as it was closed."""
        found = await connection.execute(
            sa.select(statements).where(
                statements.c.account_id == account.account_id, statements.c.month == month
            )
        )
        if (row := found.one_or_none()) is not None:
            return _Drawn(_kept(row), 0, 0, NONE_CLOSED)
        now = self._database.now()
        closed = await closed_of(connection, account)
        last = closed[-1] if closed else NONE_CLOSED
        zone, month_ends_ms = account.time_zone, end_ms(month, account.time_zone)
        if month_ends_ms <= last.end_ms or month <= last.month:
            raise ResourceNotFound(
                f"tenant {account.tenant} has no statement of {month}: it had no usage when"
                f" {last.month} was closed; what came later is in the statement of"
                f" {month_after(last.month)} or a later one"
            )
        if begin_ms(month, zone) > milliseconds(now):
            raise ResourceNotFound(f"{month} has not begun in {zone}")
        # Why not always as the zone says: the tenant's may have changed since.
        follows = last.month and month == month_after(last.month)
        begins_ms = last.end_ms if follows else begin_ms(month, zone)
        # The first month that is open has all that no statement has: it is closed next.
        first_ms = await first_open_ms(connection, account, last)
        is_next = first_ms is None or first_ms >= begins_ms
        recording = await last_recording(connection)
        which = of_month(begins_ms, month_ends_ms, recording)
        by_hand: list[Line] = []
        last_correction = last.last_correction
        if is_next:
            which = sa.or_(which, late_rows(last, recording))
            last_correction, by_hand = await corrections_since(connection, account, last)
        lines = await usage_lines(connection, account, closed, which, by_key=by_key)
        statement = Statement(
            account, month, begins_ms, month_ends_ms, now, in_order((*lines, *by_hand))
        )
        return _Drawn(statement, recording, last_correction, last)

    async def _check_closable(
        self, connection: AsyncConnection, account: Account, drawn: _Drawn, *, early: bool
    ) -> None:
        statement, zone = drawn.statement, account.time_zone
        if not early and statement.end_ms > milliseconds(self._database.now()):
            raise FailedPrecondition(
                f"{statement.month} goes on in {zone}: close it once it has ended, or now with"
                " `early` (--early)"
            )
        first_ms = await first_open_ms(connection, account, drawn.last)
        if first_ms is not None and first_ms < statement.begin_ms:
            earlier = _month_from(first_ms, account, drawn.last)
            raise FailedPrecondition(
                f"{earlier} has usage of tenant {account.tenant} and is open: close it first"
            )

    async def _due(self, account: Account, after: timedelta) -> str | None:
        """Return the next month that is to be closed."""
        by_ms = milliseconds(self._database.now() - after)
        async with self._database.reading(snapshot=True) as connection:
            closed = await closed_of(connection, account)
            last = closed[-1] if closed else NONE_CLOSED
            first_ms = await first_open_ms(connection, account, last)
            if first_ms is not None:
                month = _month_from(first_ms, account, last)
                return month if end_ms(month, account.time_zone) <= by_ms else None
            # Without usage, a month is closed only for what came late.
            _, by_hand = await corrections_since(connection, account, last)
            if not by_hand and not await has_late_rows(connection, account, last):
                return None
        month = _ended_month(by_ms, account.time_zone)
        return month if month > last.month else None


async def is_billed(connection: AsyncConnection, account: Account) -> bool:
    """Return whether the account has usage, a correction or a statement."""
    for table in (statements, corrections):
        query = sa.select(table.c.sequence).where(table.c.account_id == account.account_id)
        if await connection.scalar(query.limit(1)) is not None:
            return True
    return await has_usage(connection, account)


def _ended_month(time_ms: int, zone: str) -> str:
    """Return the last month that has ended by a time."""
    return month_at(begin_ms(month_at(time_ms, zone), zone) - 1, zone)


def _month_from(time_ms: int, account: Account, last: Closed) -> str:
    """Return the month of a time behind the last closed one, which time zones may have moved."""
    month = month_at(time_ms, account.time_zone)
    return max(month, month_after(last.month)) if last.month else month


async def _keep(change: Change, drawn: _Drawn) -> Statement:
    """Insert a statement as closed."""
    last = await change.connection.scalar(sa.select(sa.func.max(statements.c.sequence)))
    statement = replace(drawn.statement, sequence=(last or 0) + 1)
    account, text = statement.account, content(statement)
    statement = replace(statement, hash=hash_of(text))
    values = {
        "sequence": statement.sequence,
        "account_id": account.account_id,
        "month": statement.month,
        "end_ms": statement.end_ms,
        "last_recording": drawn.recording,
        "last_correction": drawn.last_correction,
        "content": text,
        "hash": statement.hash,
        "close_ms": change.now_ms,
    }
    await change.execute(sa.insert(statements).values(values))
    details = {
        "sequence": statement.sequence,
        "account_id": account.account_id,
        "currency": account.currency,
        "total_nanos": statement.total_nanos,
        "hash": statement.hash,
    }
    resource = f"tenants/{account.tenant}/statements/{statement.month}"
    await change.record("statements.close", resource, tenant=account.tenant, details=details)
    return statement


def _kept(row: sa.Row[tuple[object, ...]]) -> Statement:
    """Raises:
    InternalError: it is not what was closed.
    """
    if hash_of(row.content) != row.hash:
        raise InternalError(
            f"statement {row.sequence} is not what its hash says: the database was changed"
        )
    return closed_statement(row.content)

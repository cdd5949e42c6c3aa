"""Records of usage become rows: each once, with its sums, its events and the position of the
stream in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import DecodeError
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.usage import StoredUsage, UsagePosition
from headrace.internal.v1.usage_pb2 import UsageRecord, UsageRecords
from headrace_control.base.accounts.billed_lines import BatchLine, line_of, mark_billed
from headrace_control.base.accounts.usage import (
    COSTS,
    FREE,
    HOUR_KEY,
    SUMS,
    UnreadableUsage,
    Values,
    hours_of,
    priced,
    read_message,
    read_record,
)
from headrace_control.base.published_rows import milliseconds
from headrace_control.store.database.billing_tables import (
    IS_BILLED_LINE,
    usage,
    usage_gaps,
    usage_hour,
    usage_position,
    usage_unreadable,
)
from headrace_control.store.database.published import in_parts
from headrace_control.store.database.transactions import Database, adding, inserting
from headrace_control.store.usage.leaderships import Leaderships, in_another_stream
from headrace_control.store.usage.row_keys import new_rows, rows_of
from headrace_control.store.usage.spending import add_spending
from headrace_control.store.usage.terms import terms_for
from headrace_control.store.usage.unpriced import UnpricedModels


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of messages."""

    rows: int = 0
    repeated: int = 0
    """Records whose rows were there."""
    unreadable: int = 0
    renamed: int = 0
    """Rows whose records had the key of another request."""
    missing: int = 0
    """Positions whose messages are gone; nothing is known of them."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record, or a whole message, that is no row."""

    position: UsagePosition
    reason: str
    record: bytes


class Ledger:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._unpriced = UnpricedModels()

    async def position(self) -> UsagePosition | None:
        """Return up to where the stream is stored; None: nothing of any stream is."""
        async with self._database.reading() as connection:
            row = (await connection.execute(sa.select(usage_position))).one_or_none()
        return UsagePosition(row.stream, row.sequence) if row and row.stream else None

    async def record(self, messages: Sequence[StoredUsage]) -> Recorded:
        """Store messages, which follow one another in one stream, and the position of the last.

        A record whose request has a row changes nothing; nor do messages that are not
        behind the stored position, which another process has stored meanwhile.
        """
        async with self._database.writing() as connection:
            before = await self._locked_position(connection, messages[0].position.stream)
            new = [each for each in messages if each.position.sequence > before]
            if not new:
                return Recorded()
            missing = await self._note_gaps(connection, before, new)
            published, readable, unreadable = _read(new)
            leaderships = await Leaderships.of(connection, published)
            rows, renamed = await self._new_rows(connection, readable, leaderships)
            repeated = len(readable) - len(rows)
            stored, too_dear = await self._store_rows(connection, rows)
            unreadable += too_dear
            await self._set_aside(connection, unreadable)
            await self._move(connection, new[-1].position)
        return Recorded(stored, repeated, len(unreadable), renamed, missing)

    async def set_aside(self, message: StoredUsage, reason: str) -> None:
        """Store a message that the database refuses to have as rows, and its position."""
        position = message.position
        async with self._database.writing() as connection:
            if position.sequence > await self._locked_position(connection, position.stream):
                await self._set_aside(connection, [Unreadable(position, reason, message.payload)])
                await self._move(connection, position)

    async def restore(self, message: UsageRecords, at: UsagePosition) -> int:
        """Store those records of a message that can be rows and have none, whatever the position
        is; return how many."""
        async with self._database.writing() as connection:
            await self._locked_position(connection, at.stream)
            published, readable, _ = _read([StoredUsage(at, message.SerializeToString())])
            leaderships = await Leaderships.of(connection, published)
            rows, _ = await self._new_rows(connection, readable, leaderships)
            stored, _ = await self._store_rows(connection, rows)
        return stored

    async def retry_unreadable(self) -> int:
        """Store what this version can read of what an earlier one could not; return how many."""
        stored = 0
        for each in await self.unreadable():
            if message := _message_in(each.record):
                stored += await self.restore(message, each.position)
                async with self._database.writing() as connection:
                    digest = sha256(each.record).hexdigest()
                    is_it = usage_unreadable.c.digest == digest
                    await connection.execute(sa.delete(usage_unreadable).where(is_it))
        return stored

    async def rows_of(self, records: Sequence[UsageRecord]) -> list[Values | None]:
        """Return the row that each of some records has."""
        async with self._database.reading() as connection:
            return await rows_of(connection, records)

    async def unreadable(self, limit: int = 1000) -> tuple[Unreadable, ...]:
        """Return what is no row, the oldest first."""
        order = (usage_unreadable.c.time_ms, usage_unreadable.c.position)
        query = sa.select(usage_unreadable).order_by(*order).limit(limit)
        async with self._database.reading() as connection:
            found = (await connection.execute(query)).all()
        return tuple(
            Unreadable(UsagePosition(r.stream, r.position), r.reason, bytes.fromhex(r.record))
            for r in found
        )

    async def gaps(self) -> tuple[tuple[int, int], ...]:
        """Return the first and the last of positions whose messages were gone, oldest first."""
        query = sa.select(usage_gaps).order_by(usage_gaps.c.time_ms, usage_gaps.c.first)
        async with self._database.reading() as connection:
            return tuple((row.first, row.last) for row in await connection.execute(query))

    async def _locked_position(self, connection: AsyncConnection, stream: str) -> int:
        """Return up to where this stream is stored; no other transaction moves it meanwhile."""
        # PostgreSQL's other writers of usage wait here, SQLite's have done so.
        query = sa.select(usage_position).with_for_update()
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            numbers = ("rows_since_ms", "sequence", "time_ms", "recording")
            values = {"id": 1, "stream": "", "is_older": False, **dict.fromkeys(numbers, 0)}
            first = inserting(connection, usage_position).values(values)
            await connection.execute(first.on_conflict_do_nothing())
            row = (await connection.execute(query)).one()
        return row.sequence if row.stream == stream else 0

    async def _new_rows(
        self, connection: AsyncConnection, records: Sequence[Values], leaderships: Leaderships
    ) -> tuple[list[Values], int]:
        """Return the rows that are new, and how many of them got a source of their own; note what
        has a row of another leadership."""
        for record in records:
            record["leadership"] = leaderships.number(record["read_from"][1])
        found = await new_rows(connection, records)
        await leaderships.add_repeated(found.repeated)
        return found.rows, found.renamed

    async def _store_rows(
        self, connection: AsyncConnection, rows: Sequence[Values]
    ) -> tuple[int, list[Unreadable]]:
        """Insert rows with their prices, sums and events; return how many, and what is no row."""
        terms = await terms_for(connection, rows)
        mark_billed(rows, await _billed_lines(connection, rows))
        stored: list[Values] = []
        too_dear: list[Unreadable] = []
        unpriced: set[tuple[str, str]] = set()
        for row in rows:
            position, message, record = row.pop("read_from")
            currency = terms.currency(row)
            price = terms.price(row, currency) if row["billed"] else FREE
            if row["billed"] and price is FREE:
                unpriced.add((row["model"], currency))
            try:
                row |= priced(row, price, currency)
            except UnreadableUsage as error:
                too_dear.append(_unreadable(position, error, message, record))
            else:
                stored.append(row)
        await self._unpriced.warn(connection, unpriced)
        if stored:
            recording = await _begin_recording(connection)
            await connection.execute(
                sa.insert(usage), [row | {"recording": recording} for row in stored]
            )
            await add_hours(connection, hours_of([row for row in stored if row["billed"]]))
            await add_spending(connection, stored, terms, self._now_ms)
        return len(stored), too_dear

    async def _set_aside(self, connection: AsyncConnection, records: Sequence[Unreadable]) -> None:
        values = [
            {
                "digest": sha256(each.record).hexdigest(),
                "stream": each.position.stream,
                "position": each.position.sequence,
                "reason": each.reason,
                "record": each.record.hex(),
                "time_ms": self._now_ms,
            }
            for each in records
        ]
        if values:
            insert = inserting(connection, usage_unreadable)
            await connection.execute(insert.on_conflict_do_nothing(), values)

    async def _note_gaps(
        self, connection: AsyncConnection, stored: int, messages: Sequence[StoredUsage]
    ) -> int:
        """Store which positions are missing between these messages; return how many there are."""
        found = [each.position.sequence for each in messages]
        if not stored and await self._has_stored(connection):
            # Of a stream that was made anew, nothing says what its first message was.
            stored = found[0] - 1
        gaps = [
            {"first": last + 1, "last": next_ - 1}
            for last, next_ in zip([stored, *found], found, strict=False)
            if next_ > last + 1
        ]
        if gaps:
            of = {"stream": messages[0].position.stream, "time_ms": self._now_ms}
            insert = inserting(connection, usage_gaps).on_conflict_do_nothing()
            await connection.execute(insert, [gap | of for gap in gaps])
        return sum(gap["last"] - gap["first"] + 1 for gap in gaps)

    async def _has_stored(self, connection: AsyncConnection) -> bool:
        return bool(await connection.scalar(sa.select(usage_position.c.stream)))

    async def _move(self, connection: AsyncConnection, to: UsagePosition) -> None:
        values = {"stream": to.stream, "sequence": to.sequence, "time_ms": self._now_ms}
        is_older = sa.or_(usage_position.c.is_older, in_another_stream(to.stream))
        move = sa.update(usage_position).values(is_older=is_older, **values)
        await connection.execute(move)

    @property
    def _now_ms(self) -> int:
        return milliseconds(self._database.now())


def _read(
    messages: Sequence[StoredUsage],
) -> tuple[list[tuple[UsagePosition, UsageRecords]], list[Values], list[Unreadable]]:
    """Return messages as they were published, their records as rows, and what is none."""
    published: list[tuple[UsagePosition, UsageRecords]] = []
    readable: list[Values] = []
    unreadable: list[Unreadable] = []
    for stored in messages:
        position = stored.position
        try:
            message = read_message(stored.payload)
        except UnreadableUsage as error:
            unreadable.append(Unreadable(position, str(error), stored.payload))
            continue
        published.append((position, message))
        for record in message.records:
            try:
                values = read_record(record)
            except UnreadableUsage as error:
                unreadable.append(_unreadable(position, error, message, record))
            else:
                values |= {"position": position.sequence, "read_from": (position, message, record)}
                readable.append(values)
    return published, readable, unreadable


def _unreadable(
    position: UsagePosition, error: UnreadableUsage, message: UsageRecords, record: UsageRecord
) -> Unreadable:
    """Return a record to set aside, as a message that names its leadership."""
    apart = UsageRecords(records=[record], model=message.model, epoch=message.epoch)
    return Unreadable(position, str(error), apart.SerializeToString())


def _message_in(payload: bytes) -> UsageRecords | None:
    """Return what was set aside, a message or a record, as a message, if its records can be rows;
    None: they cannot."""
    for kind in (UsageRecords, UsageRecord):
        try:
            found = kind.FromString(payload)
            message = found if isinstance(found, UsageRecords) else UsageRecords(records=[found])
            for record in message.records:
                read_record(record)
        except (DecodeError, UnreadableUsage):
            continue
        if message.records:
            return message
    return None


async def _billed_lines(connection: AsyncConnection, rows: Sequence[Values]) -> set[BatchLine]:
    """Return those of the rows' lines that have a billed row."""
    found: set[BatchLine] = set()
    lines = {line[:2] for row in rows if (line := line_of(row)) is not None}
    columns = (usage.c.batch_id, usage.c.batch_line, usage.c.billed_part)
    for batch_id in {line[0] for line in lines}:
        of_batch = sorted(number for of, number in lines if of == batch_id)
        for some in in_parts(of_batch):
            query = sa.select(*columns).where(IS_BILLED_LINE, usage.c.batch_id == batch_id)
            known = await connection.execute(query.where(usage.c.batch_line.in_(some)))
            found |= {(row.batch_id, row.batch_line, row.billed_part) for row in known}
    return found


async def _begin_recording(connection: AsyncConnection) -> int:
    """Return the number of this transaction, which holds the lock of the position."""
    number = usage_position.c.recording
    begin = sa.update(usage_position).values(recording=number + 1).returning(number)
    return int(await connection.scalar(begin) or 0)


async def add_hours(connection: AsyncConnection, hours: Sequence[Mapping[str, Any]]) -> None:
    """Add to the sums of hours; these are in the order of their keys."""
    if hours:
        add = adding(connection, usage_hour, HOUR_KEY, (*SUMS, *COSTS))
        await connection.execute(add, hours)

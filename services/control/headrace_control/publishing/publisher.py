"""Publishes what the database says to the tables on the bus, and says since when they agree.

begin       compare every table with the database, repair it, stamp it
a commit    read the outbox, publish its rows in order, delete them there
every 10 s  stamp the tables, which says: they hold what the database holds
reconnect   begin again: the broker may have lost its store, or come back with an older one

What another process writes is noticed before each stamp, and compared: one that was suspended in
the middle of a write, or cut off, may finish it after this one has become the active one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import DecodeError

from headrace.bus import BusError, Messages, Tables
from headrace.bus.subjects import (
    KEYS_TABLE,
    PRICES_TABLE,
    SESSIONS_TABLE,
    TABLE_STAMP,
    TENANTS_TABLE,
    tenant_row,
)
from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace.errors import ControlUnavailable
from headrace.internal.v1.access_pb2 import TableStamp
from headrace.telemetry.condition_log import ConditionLog
from headrace_control.base import metrics
from headrace_control.base.records import REPUBLISH, OutboxRow
from headrace_control.publishing.comparison import difference, runs
from headrace_control.publishing.election import SteppedDown

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_S = 1.0
"""How often the outbox is read without a commit of this process: other processes, as `headrace db`,
write to it too."""
AT_ONCE = 32
"""Rows that are published at the same time."""
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0
NO_DATABASE_S = 5.0
"""How long a process without its database stays the active one."""
ANSWER_S = 20.0
"""Longest wait for the database: a line that was cut silently would never answer, and this process
would stay the active one, and publish nothing."""
COMPARE_S = 600.0
"""How often the whole tables are compared though nothing indicates a difference."""


_ORDER = TENANTS_TABLE, KEYS_TABLE, SESSIONS_TABLE, PRICES_TABLE
"""In which tables are compared: no key is published before its tenant."""
_MOST = 10_000
_LATEST_MS = 2**53


class Outbox(Protocol):
    """Of the store."""

    def pending(self, limit: int = 500) -> Coroutine[Any, Any, tuple[OutboxRow, ...]]: ...

    def done(self, sequences: Sequence[int]) -> Coroutine[Any, Any, None]: ...

    def all_rows(self) -> Coroutine[Any, Any, dict[str, dict[str, bytes]]]: ...

    async def wait_for_rows(self, timeout_s: float) -> None: ...


class PublishingBus(Messages, Tables, Protocol):
    """The parts of the bus that publishing uses."""


class Publisher:
    """The publisher of the active process; `run` runs while this process is that."""

    def __init__(
        self,
        bus: PublishingBus,
        outbox: Outbox,
        clock: Clock,
        *,
        stamp_s: float,
        is_active: Callable[[], bool],
    ) -> None:
        self._bus, self._outbox, self._clock = bus, outbox, clock
        self._stamp_s, self._is_active = stamp_s, is_active
        self.compared = asyncio.Event()
        """Set once the tables have been what the database said, in this run."""
        self._progress = asyncio.Condition()
        self._done_sequence = 0
        self._keys: set[str] = set()
        self._stamped_s = self._compared_s = float("-inf")
        self._stamp_ms = 0
        """The latest stamp, of this process or of one before."""
        self._sequences = dict.fromkeys(_ORDER, 0)
        """Of the tables, if this process alone has written since they were compared."""
        self._failing = ConditionLog(log, active="publishing.fails", cleared="publishing.works")

    async def settled(self) -> None:
        """Return once all that is committed now has been published. No deadline."""
        while rows := await self._outbox.pending(_MOST):
            last = rows[-1].sequence
            async with self._progress:
                await self._progress.wait_for(lambda: self._done_sequence >= last)  # noqa: B023
            if len(rows) < _MOST:
                return

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            SteppedDown: this process is no longer the active one.
        """
        metrics.published_age_s.set_function(self._age_s)
        self.compared.clear()
        retry_s, compared_at, worked_s = 0.0, -1, self._clock.monotonic_s()
        while True:
            recheck_cancelled()
            try:
                if compared_at != self._bus.reconnects or self._is_due(self._compared_s, COMPARE_S):
                    reconnects = self._bus.reconnects
                    await self._compare_tables()
                    compared_at = reconnects
                await self._publish_outbox()
                if self._is_due(self._stamped_s, self._stamp_s):
                    if not await self._is_only_writer():
                        await self._compare_tables()
                    else:
                        await self._stamp_tables()
            except (BusError, ControlUnavailable) as error:
                self._step_down_without_database(error, worked_s)
                retry_s = min(max(2 * retry_s, FIRST_RETRY_S), LAST_RETRY_S)
                self._failing.active(self._clock.monotonic_s(), why=str(error))
                await asyncio.sleep(retry_s)
                continue
            retry_s, worked_s = 0.0, self._clock.monotonic_s()
            self._failing.cleared(self._clock.monotonic_s())
            await self._outbox.wait_for_rows(min(POLL_S, self._stamp_s))

    def _step_down_without_database(self, error: Exception, worked_s: float) -> None:
        """Leave it to a standby, which may reach the database, if this process does not."""
        lasted_s = self._clock.monotonic_s() - worked_s
        if isinstance(error, ControlUnavailable) and lasted_s >= NO_DATABASE_S:
            raise SteppedDown(f"the database cannot be used for {lasted_s:.0f} s") from error

    async def _compare_tables(self) -> None:
        """Make the tables on the bus what the database says, and stamp them."""
        # Why first: what is in the outbox now is part of `expected`, and to publish it afterwards
        # would bring back, for a moment, what a row was before.
        pending = await _answered(self._outbox.pending(_MOST))
        expected = await _answered(self._outbox.all_rows())
        for table in _ORDER:
            rows = {bus_key(table, key): row for key, row in expected[table].items()}
            self._sequences[table] = await self._bus.table_sequence(table)
            held = await self._bus.rows(table)
            self._stamp_ms = max(self._stamp_ms, _stamp_ms(held.get(TABLE_STAMP, b"")))
            changes = difference(rows, held)
            if changes:
                _report(table, len(changes), was_stamped=TABLE_STAMP in held)
            await self._publish(OutboxRow(0, table, key, row) for key, row in changes.items())
        self._keys = set(expected[KEYS_TABLE])
        metrics.keys.set(len(self._keys))
        await self._done(pending)
        await self._stamp_tables()
        self._compared_s = self._clock.monotonic_s()
        self.compared.set()

    async def _publish_outbox(self) -> None:
        while rows := await _answered(self._outbox.pending()):
            metrics.outbox_rows.set(len(rows))
            if any(row.table == REPUBLISH for row in rows):
                await self._compare_tables()
            else:
                await self._publish(rows)
        metrics.outbox_rows.set(0)

    async def _publish(self, rows: Iterable[OutboxRow]) -> None:
        """Publish rows in their order, and delete those of the outbox there."""
        for run in runs(rows, longest=AT_ONCE):
            self._require_active()
            outcomes = await asyncio.gather(*map(self._put, run), return_exceptions=True)
            recheck_cancelled()
            if failed := [each for each in outcomes if each is not None]:
                raise failed[0]
            metrics.published.labels(run[0].table).inc(len(run))
            await self._done([row for row in run if row.sequence])

    async def _put(self, row: OutboxRow) -> None:
        key = bus_key(row.table, row.key)
        if row.row is None:
            await self._bus.delete_row(row.table, key)
        else:
            await self._bus.put_row(row.table, key, row.row)
        self._sequences[row.table] += 1
        if row.table == KEYS_TABLE:
            (self._keys.discard if row.row is None else self._keys.add)(row.key)
            metrics.keys.set(len(self._keys))

    async def _done(self, rows: Sequence[OutboxRow]) -> None:
        if not rows:
            return
        await _answered(self._outbox.done([row.sequence for row in rows]))
        async with self._progress:
            self._done_sequence = max(self._done_sequence, rows[-1].sequence)
            self._progress.notify_all()

    async def _stamp_tables(self) -> None:
        self._require_active()
        # Why never lower: gateways believe no table whose stamp is older than the last one, and
        # this machine's clock may be behind that of the process before, or set back.
        self._stamp_ms = max(self._stamp_ms + 1, int(self._clock.unix_s() * 1000))
        stamp = TableStamp(time_ms=self._stamp_ms).SerializeToString()
        for table in _ORDER:
            await self._bus.put_row(table, TABLE_STAMP, stamp)
            self._sequences[table] += 1
        self._stamped_s = self._clock.monotonic_s()

    async def _is_only_writer(self) -> bool:
        """Return whether nobody else has written to the tables since they were compared."""
        for table in _ORDER:
            if (found := await self._bus.table_sequence(table)) != self._sequences[table]:
                extra = {"table": table, "expected": self._sequences[table], "found": found}
                log.warning("publishing.other_writer", extra=extra)
                return False
        return True

    def _require_active(self) -> None:
        if not self._is_active():
            raise SteppedDown("the lease has expired")

    def _is_due(self, last_s: float, every_s: float) -> bool:
        return self._clock.monotonic_s() - last_s >= every_s

    def _age_s(self) -> float:
        is_known = self._is_active() and self._stamped_s > float("-inf")
        return self._clock.monotonic_s() - self._stamped_s if is_known else float("nan")


async def _answered(call: Coroutine[Any, Any, T]) -> T:
    """Return what the database answers.

    Raises:
        ControlUnavailable: it does not in time.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            return await call
    except TimeoutError:
        raise ControlUnavailable(f"the database has not answered for {ANSWER_S:g} s") from None


def _report(table: str, rows: int, *, was_stamped: bool) -> None:
    """Log what a comparison changes. A table without a stamp is new: nothing was wrong with it."""
    facts = {"table": table, "rows": rows}
    if not was_stamped:
        log.info("publishing.filled", extra=facts)
        return
    log.warning("publishing.repaired", extra=facts)
    metrics.repaired.labels(table).inc(rows)


def _stamp_ms(row: bytes) -> int:
    """Return the time of a stamp; 0 of what is none, or cannot be from any clock."""
    try:
        time_ms = TableStamp.FromString(row).time_ms
    except DecodeError:
        return 0
    return time_ms if time_ms < _LATEST_MS else 0


def bus_key(table: str, key: str) -> str:
    """Return the key on the bus of a row that the database knows by `key`."""
    return tenant_row(key) if table == TENANTS_TABLE else key

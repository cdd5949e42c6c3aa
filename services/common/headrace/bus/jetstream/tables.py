"""Tables in key-value buckets, and watches of them that no reconnect leaves behind.

Why not nats-py's own watch: after a reconnect its ordered consumer goes on behind the last sequence
it knew, up to ten seconds later, and hears nothing of a store that was lost and begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from headrace.bus import BusUnavailable
from headrace.bus.jetstream.connection import Connected, is_for, unavailable
from headrace.bus.stores import bucket_of
from headrace.cancellation import rechecking_cancelled

log = logging.getLogger(__name__)

OnTable = Callable[[dict[str, bytes]], None]
OnRow = Callable[[str, bytes | None], None]

_RETRY_S = 0.2
_NO_MESSAGE = 10037
_FIRST_READ_S = 5.0
"""How long the rows that a table has may take to come before they are requested again."""


def table_bucket(table: str, replicas: int) -> KeyValueConfig:
    return KeyValueConfig(bucket=bucket_of(table), history=1, replicas=replicas)


SILENT_S = 30.0
"""A table of which nothing was heard for so long is read again: control stamps each several times
in it. In a cluster a store can be lost, and begin anew, without a reconnect of this client; the
consumer then waits for a sequence that is far away."""
_LOOK_S = 1.0


class StoredTables(Connected):
    """Implements `headrace.bus.Tables`."""

    @rechecking_cancelled
    async def put_row(self, table: str, key: str, row: bytes) -> None:
        self._require_connection(f"row {key} of {table}")
        with unavailable(f"row {key} of {table}"):
            await (await self._table_bucket(table)).put(key, row)

    @rechecking_cancelled
    async def delete_row(self, table: str, key: str) -> None:
        self._require_connection(f"row {key} of {table}")
        with unavailable(f"row {key} of {table}"):
            await (await self._table_bucket(table)).delete(key)

    @rechecking_cancelled
    async def rows(self, table: str) -> dict[str, bytes]:
        whole: asyncio.Future[dict[str, bytes]] = asyncio.get_running_loop().create_future()

        def on_table(rows: dict[str, bytes]) -> None:
            if not whole.done():
                whole.set_result(rows)

        reading = TableReading(self, table, on_table, lambda key, row: None)
        try:
            async with asyncio.timeout(_FIRST_READ_S):
                with unavailable(f"table {table}"):
                    await reading.begin()
                return await whole
        except TimeoutError:
            raise BusUnavailable(f"table {table}: no answer") from None
        finally:
            await reading.end()

    @rechecking_cancelled
    async def table_sequence(self, table: str) -> int:
        with unavailable(f"table {table}"):
            return (await self._js.stream_info(f"KV_{bucket_of(table)}")).state.last_seq

    async def watch_table(self, table: str, on_table: OnTable, on_row: OnRow) -> TableWatch:
        return TableWatch(self, table, on_table, on_row)

    def _require_connection(self, what: str) -> None:
        # Why: nats-py would keep the row, and send it once it is connected, by when another process
        # may have written what has replaced it: a revoked key would be valid again.
        if not self._client.is_connected:
            raise BusUnavailable(f"{what}: no connection to NATS")

    async def _table_bucket(self, table: str) -> KeyValue:
        name = bucket_of(table)
        if name not in self._kv:
            self._kv[name] = await self._js.key_value(name)
        return self._kv[name]


class TableReading:
    """One subscription of a table: its rows as they are, and then every change."""

    def __init__(self, bus: Connected, table: str, on_table: OnTable, on_row: OnRow) -> None:
        self._bus, self._stream = bus, f"KV_{bucket_of(table)}"
        self._prefix = f"$KV.{bucket_of(table)}."
        self._on_table, self._on_row = on_table, on_row
        self._rows: dict[str, bytes] | None = {}
        """Those that have come; None once the table is whole."""
        self._last = 0
        self._subscription: object | None = None
        self._heard_s = time.monotonic()

    @property
    def is_whole(self) -> bool:
        return self._rows is None

    @property
    def is_silent(self) -> bool:
        """Whether nothing was heard for so long that it may hear nothing any more."""
        return time.monotonic() - self._heard_s >= SILENT_S

    @rechecking_cancelled
    async def begin(self) -> None:
        js = self._bus.jetstream
        # The table is whole with the row that is the last one now, or with any later one. Not with
        # the stream's last message: the broker can be made to store what is no row there.
        self._last = await self._last_row()
        if self._last == 0:
            self._finish()
        self._subscription = await js.subscribe(
            f"{self._prefix}>", cb=self._receive, ordered_consumer=True
        )

    async def _last_row(self) -> int:
        try:
            return (
                await self._bus.jetstream.get_last_msg(self._stream, f"{self._prefix}>")
            ).seq or 0
        except nats.js.errors.NotFoundError as error:
            if error.err_code != _NO_MESSAGE:
                raise
            return 0

    async def end(self) -> None:
        if self._subscription is not None and not self._bus.closed:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()  # type: ignore[attr-defined]

    async def _receive(self, message: Msg) -> None:
        if not is_for(f"{self._prefix}>", message):
            return
        self._heard_s = time.monotonic()
        key = message.subject.removeprefix(self._prefix)
        is_deleted = (message.headers or {}).get("KV-Operation") in ("DEL", "PURGE")
        if self._rows is None:
            self._on_row(key, None if is_deleted else message.data)
            return
        if is_deleted:
            self._rows.pop(key, None)
        else:
            self._rows[key] = message.data
        if message.metadata.sequence.stream >= self._last:
            self._finish()

    def _finish(self) -> None:
        rows, self._rows = self._rows, None
        self._on_table(rows or {})


class TableWatch:
    """Reads a table whole, and again after every reconnect and long silence; until `close`."""

    def __init__(self, bus: Connected, table: str, on_table: OnTable, on_row: OnRow) -> None:
        self._bus, self._table = bus, table
        self._on_table, self._on_row = on_table, on_row
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            epoch = self._bus.reconnects
            reading = TableReading(self._bus, self._table, self._on_table, self._on_row)
            try:
                await reading.begin()
                async with asyncio.timeout(_FIRST_READ_S) as first_read:
                    while not reading.is_whole and self._bus.reconnects == epoch:
                        await asyncio.sleep(0.01)
                    first_read.reschedule(None)
                    while self._bus.reconnects == epoch and not reading.is_silent:
                        await self._look_later(epoch)
            except (TimeoutError, nats.errors.Error) as error:
                log.debug("bus.table_unread", extra={"table": self._table, "why": repr(error)})
                await asyncio.sleep(_RETRY_S)
            except Exception:  # top of a task; without it no revocation would be heard any more
                log.exception("bus.table_unread", extra={"table": self._table})
                await asyncio.sleep(_RETRY_S)
            finally:
                await reading.end()

    async def _look_later(self, epoch: int) -> None:
        """Return after a reconnect, or a moment later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._bus.reconnected_since(epoch)

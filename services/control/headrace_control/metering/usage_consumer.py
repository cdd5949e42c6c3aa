"""Stores the stream of usage records, each once.

    read      what follows the stored position
    store     rows, sums, events and the position of the last, in one transaction
    purge     what both readers have: control, and the quota keeper

The position is in the database, so a death between any two of these repeats or loses nothing. What
the database refuses to store is set aside, one message at a time; it blocks nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from headrace.bus import BusError
from headrace.bus.usage import StoredUsage, UsagePosition, UsageStream
from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace.errors import ControlUnavailable
from headrace.telemetry.condition_log import ConditionLog
from headrace_control.base import metrics

log = logging.getLogger(__name__)

AT_ONCE = 500
"""Most messages of one transaction; fewer after one that was not done in time."""
WAIT_S = 1.0
GROUP_S = 1.0
"""Time between two transactions that are not full: what comes meanwhile is stored together, which
costs less than a transaction for each message."""
PURGE_S = 2.0
ANSWER_S = 30.0
"""Longest wait for the database; a line that was cut silently would never answer."""
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0


class Recorded(Protocol):
    @property
    def rows(self) -> int: ...
    @property
    def repeated(self) -> int: ...
    @property
    def unreadable(self) -> int: ...
    @property
    def renamed(self) -> int: ...
    @property
    def missing(self) -> int: ...


class Ledger(Protocol):
    """Of the store."""

    async def position(self) -> UsagePosition | None: ...

    async def record(self, messages: Sequence[StoredUsage]) -> Recorded: ...

    async def set_aside(self, message: StoredUsage, reason: str) -> None: ...


class UsageConsumer:
    """`run` runs while this process is the active one; two for a moment store nothing twice."""

    def __init__(self, bus: UsageStream, ledger: Ledger, clock: Clock) -> None:
        self._bus, self._ledger, self._clock = bus, ledger, clock
        self.caught_up = asyncio.Event()
        """Set once all of the stream has been stored, in this run."""
        self._at_once = AT_ONCE
        self._last: UsagePosition | None = None
        self._purged_s = float("-inf")
        self._failing = ConditionLog(log, active="usage.not_stored", cleared="usage.stored")

    async def run(self) -> None:
        """Store and purge until cancelled; a broker or database that is away delays it."""
        retry_s = 0.0
        while True:
            recheck_cancelled()
            try:
                await self.step()
            except (BusError, ControlUnavailable, TimeoutError) as error:
                why = str(error) or f"no answer in {ANSWER_S:g} s"
                self._failing.active(self._clock.monotonic_s(), why=why)
                retry_s = min(max(2 * retry_s, FIRST_RETRY_S), LAST_RETRY_S)
                await asyncio.sleep(retry_s)
                continue
            retry_s = 0.0
            self._failing.cleared(self._clock.monotonic_s())

    async def step(self, *, wait_s: float = WAIT_S) -> bool:
        """Store what follows the stored position; False if nothing came in `wait_s`.

        Raises:
            BusError: the broker is away.
            ControlUnavailable, TimeoutError: the database is.
        """
        async with asyncio.timeout(ANSWER_S):
            position = await self._ledger.position()
        if position == self._last:
            # The database does not hold when its message was stored.
            position = self._last
        at_once = self._at_once
        messages = await self._bus.usage_after(position, max_messages=at_once, timeout_s=wait_s)
        if messages:
            await self._store_in_time(messages)
            position = self._last = messages[-1].position
            if len(messages) < at_once:
                await asyncio.sleep(GROUP_S)
        if len(messages) < at_once:
            self.caught_up.set()
        await self._purge(position)
        return bool(messages)

    async def _store_in_time(self, messages: Sequence[StoredUsage]) -> None:
        try:
            await self._store(messages)
        except TimeoutError:
            # Why: as many again would take as long again, and nothing would ever be stored.
            self._at_once = max(1, len(messages) // 2)
            raise
        self._at_once = min(2 * self._at_once, AT_ONCE)

    async def _store(self, messages: Sequence[StoredUsage]) -> None:
        """Store messages; those that the database refuses, alone."""
        try:
            async with asyncio.timeout(ANSWER_S):
                done = await self._ledger.record(messages)
        except (ControlUnavailable, TimeoutError):
            raise
        # Why any: whatever is wrong with one message, the others are bills.
        except Exception as error:
            if len(messages) > 1:
                half = len(messages) // 2
                await self._store(messages[:half])
                await self._store(messages[half:])
                return
            log.exception("usage.refused", extra={"position": messages[0].position.sequence})
            await self._ledger.set_aside(messages[0], f"{type(error).__name__} when it was stored")
            metrics.usage_unreadable.inc()
            return
        _count(messages, done)

    async def _purge(self, position: UsagePosition | None) -> None:
        """Purge from time to time what all readers have."""
        now_s = self._clock.monotonic_s()
        if position is None or now_s - self._purged_s < PURGE_S:
            return
        state = await self._bus.usage_state()
        is_same = state.last.stream == position.stream
        behind = state.last.sequence - position.sequence if is_same else state.messages
        metrics.usage_behind.set(max(0, behind))
        if state.messages and is_same:
            await self._bus.purge_usage(position)
        self._purged_s = now_s


def _count(messages: Sequence[StoredUsage], done: Recorded) -> None:
    metrics.usage_rows.inc(done.rows)
    metrics.usage_repeated.inc(done.repeated)
    facts = {"last_position": messages[-1].position.sequence}
    if done.unreadable:
        metrics.usage_unreadable.inc(done.unreadable)
        log.error("usage.unreadable", extra={"records": done.unreadable, **facts})
    if done.renamed:
        # A broker that lost its power has used sequences again.
        metrics.usage_renamed.inc(done.renamed)
        log.error("usage.sequence_used_again", extra={"records": done.renamed, **facts})
    if done.missing:
        metrics.usage_missing.inc(done.missing)
        log.error("usage.missing", extra={"messages": done.missing, **facts})

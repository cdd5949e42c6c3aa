"""One term of the quota keeper: from the end of the journal to the loss of the lease."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.bus import Bus, BusError, subjects
from headrace.bus.usage import KEEPER, StoredUsage, UsagePosition
from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace.internal.v1.quota_pb2 import LimitKind, QuotaRequest
from headrace.internal.v1.usage_pb2 import UsageRecords
from headrace_scheduler.base import metrics
from headrace_scheduler.keeper.groups import Counts, Group, TermsOf
from headrace_scheduler.keeper.journal import JournalWriter, Spent
from headrace_scheduler.quota.record import QuotaRecord
from headrace_scheduler.runtime.leader import SteppedDown

log = logging.getLogger(__name__)

GROUP_CALLS = 256
"""A group takes messages until it has so many calls: more would hold up the models of this
process."""
GROUP_BYTES = 384 * 1024
"""Of the messages of a group; their entry is a little larger, and the broker's bound is 1 MiB."""
MAX_WAITING = 10_000
"""Messages that wait; further ones get no answer."""
STALE_S = 2.0
"""Age of a message whose callers have given up."""
USAGE_AT_ONCE = 32
USAGE_BYTES = 256 * 1024
"""Of the usage that one group settles."""
USAGE_WAIT_S = 1.0
SETTLE_WAIT_S = 0.25
"""Longest that usage waits for a call to be settled with. Nothing is decided meanwhile, and an
entry for each message would cost more than its settlement."""
RETRY_S = 0.5
POSITION_S = 1.0
"""How often the place in the usage is stored where nothing else is, and for who purges it."""
_LIMIT_NAMES = {
    int(number): name.removeprefix("LIMIT_KIND_").lower() for name, number in LimitKind.items()
}


@dataclass(slots=True, eq=False)
class _Message:
    payload: bytes
    received_s: float
    answer: asyncio.Future[bytes]


class QuotaKeeper:
    """Decides on reservations, and answers once what it has decided is in the journal.

    The record is only touched on the event loop, by `_keep`.

    Args:
        may_answer: whether this process holds the lease, by its own clock. What was appended is
            answered in any case: the journal proves that there was no other keeper.
        spent: as for `JournalWriter.take_over`.
    """

    def __init__(
        self,
        bus: Bus,
        terms_of: TermsOf,
        clock: Clock,
        may_answer: Callable[[], bool],
        spent: Spent,
    ) -> None:
        self._bus, self._terms_of, self._clock = bus, terms_of, clock
        self._may_answer, self._spent = may_answer, spent
        self._journal = JournalWriter(bus)
        self._record = QuotaRecord()
        self._ahead_ms = 0.0
        self._messages: deque[_Message] = deque()
        self._usage: deque[StoredUsage] = deque()
        self._due = asyncio.Event()
        """There is something to keep now."""
        self._usage_due: asyncio.TimerHandle | None = None
        self._group_ended = asyncio.Condition()
        self._position = UsagePosition("", 0)
        """Up to which usage the journal says it is settled."""
        self._position_s = 0.0
        """When that was last written."""

    async def run(self) -> None:
        """Take the journal over and serve, until cancelled.

        Raises:
            SteppedDown: another process is the keeper, or it is not known what the journal holds.
        """
        try:
            await self._take_over()
            serving = await self._bus.serve(subjects.QUOTA, self._answer)
        except (BusError, DecodeError) as error:
            raise SteppedDown(f"the journal was not taken over: {error}") from error
        try:
            recheck_cancelled()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep())
                tasks.create_task(self._read_usage())
        finally:
            for message in self._messages:
                message.answer.cancel()
            self._cancel_usage_due()
            await serving.close()

    async def _take_over(self) -> None:
        started_s = self._clock.monotonic_s()
        now_ms = round(self._clock.unix_s() * 1000)
        self._record = await self._journal.take_over(now_ms, self._spent)
        now_s = self._clock.monotonic_s()
        # Why not the wall clock: it may be behind that of the keeper before, and times that callers
        # were given to come back would not come.
        self._ahead_ms = self._record.time_ms - now_s * 1000
        await self._begin_usage()
        metrics.quota_keeper.set(1)
        facts = {"epoch": self._record.epoch, "reservations": len(self._record)}
        log.info("quota.kept", extra={**facts, "took_s": round(now_s - started_s, 3)})

    async def _begin_usage(self) -> None:
        """Go on in the usage where the last keeper was; the first one begins with what comes."""
        group = Group(self._record, self._terms_of, self._now_ms())
        if not self._record.usage_stream:
            last = (await self._bus.usage_state()).last
            group.read_up_to(last.stream, last.sequence)
            await self._journal.append(group.entry)
        self._position = UsagePosition(self._record.usage_stream, self._record.usage_sequence)

    def _now_ms(self) -> int:
        return round(self._clock.monotonic_s() * 1000 + self._ahead_ms)

    async def _answer(self, payload: bytes) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if len(self._messages) < MAX_WAITING:
            self._messages.append(_Message(payload, self._clock.monotonic_s(), answer))
            self._due.set()
        else:
            answer.cancel()
        return await answer

    async def _keep(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._messages or self._usage:
                await self._keep_group()
                if self._journal.needs_snapshot:
                    await self._append_snapshot()
                async with self._group_ended:
                    self._group_ended.notify_all()
                # Why: an answer leaves, and other work of this process runs, before the next group.
                await asyncio.sleep(0)
            metrics.quota_reservations.set(len(self._record))

    async def _keep_group(self) -> None:
        """Settle what has ended, decide on what waits, append it, and answer."""
        group = Group(self._record, self._terms_of, self._now_ms())
        self._settle(group)
        answers = [(m.answer, group.answer(r).SerializeToString()) for m, r in self._next_calls()]
        try:
            await self._append(group)
            for answer, reply in answers:
                if not answer.done():
                    answer.set_result(reply)
        finally:
            for answer, _ in answers:
                answer.cancel()
        _count(group.counts)

    async def _append(self, group: Group) -> None:
        if group.is_empty and not self._may_answer():
            raise SteppedDown("the lease has expired")
        try:
            if not group.is_empty:
                await self._journal.append(group.entry)
                self._position = UsagePosition(
                    self._record.usage_stream, self._record.usage_sequence
                )
        except BusError as error:
            raise SteppedDown(f"the journal is not known: {error}") from error

    async def _append_snapshot(self) -> None:
        try:
            await self._journal.append_snapshot(self._record)
        except BusError as error:
            raise SteppedDown(f"the journal is not known: {error}") from error

    def _next_calls(self) -> list[tuple[_Message, QuotaRequest]]:
        """Take the messages of the next group, without those that nobody waits for."""
        found: list[tuple[_Message, QuotaRequest]] = []
        calls = size = 0
        oldest_s = self._clock.monotonic_s() - STALE_S
        while self._messages and calls < GROUP_CALLS:
            if found and size + len(self._messages[0].payload) > GROUP_BYTES:
                break
            message = self._messages.popleft()
            if message.received_s < oldest_s:
                message.answer.cancel()
                continue
            try:
                request = QuotaRequest.FromString(message.payload)
            except DecodeError:
                metrics.unreadable.labels("quota request").inc()
                message.answer.cancel()
                continue
            found.append((message, request))
            calls, size = calls + len(request.calls), size + len(message.payload)
        return found

    def _settle(self, group: Group) -> None:
        """Settle some of the usage that waits."""
        self._cancel_usage_due()
        size, last, end_ms = 0, None, 0
        while self._usage and size < USAGE_BYTES:
            stored = self._usage.popleft()
            size, last = size + len(stored.payload), stored.position
            try:
                records = UsageRecords.FromString(stored.payload).records
            except DecodeError:
                metrics.unreadable.labels("usage records").inc()
                continue
            group.settle(records)
            end_ms = max((each.end_ms for each in records), default=end_ms)
        now_s = self._clock.monotonic_s()
        if last and (group.counts.settled or now_s - self._position_s >= POSITION_S):
            self._position_s = now_s
            group.read_up_to(last.stream, last.sequence)
        if end_ms:
            metrics.quota_usage_lag_s.set(max(0, group.entry.time_ms - end_ms) / 1000)

    async def _read_usage(self) -> None:
        """Hand over the usage stream, from where the record has read it to."""
        position = self._position
        published: UsagePosition | None = None
        published_s = float("-inf")
        while True:
            try:
                found = await self._bus.usage_after(
                    position, max_messages=USAGE_AT_ONCE, timeout_s=USAGE_WAIT_S
                )
                if found:
                    position = found[-1].position
                    self._usage.extend(found)
                    await self._settle_soon()
                now_s = self._clock.monotonic_s()
                if published != self._position and now_s >= published_s + POSITION_S:
                    put = self._position
                    await self._bus.put_usage_position(KEEPER, put)
                    published, published_s = put, now_s
            except BusError as error:
                log.info("quota.usage_unread", extra={"why": str(error)})
                await asyncio.sleep(RETRY_S)
                recheck_cancelled()

    async def _settle_soon(self) -> None:
        """Have what waits settled with the next call; return once there is room for more."""
        if len(self._usage) < USAGE_AT_ONCE:
            if self._usage_due is None:
                loop = asyncio.get_running_loop()
                self._usage_due = loop.call_later(SETTLE_WAIT_S, self._due.set)
            return
        self._due.set()
        async with self._group_ended:
            await self._group_ended.wait_for(lambda: not self._usage)

    def _cancel_usage_due(self) -> None:
        if self._usage_due is not None:
            self._usage_due.cancel()
            self._usage_due = None


def _count(counts: Counts) -> None:
    for outcome, count in (
        ("granted", counts.granted),
        ("repeated", counts.repeated),
        ("refused", len(counts.refused)),
    ):
        metrics.quota_decisions.labels(outcome).inc(count)
    for kind in counts.refused:
        metrics.quota_refusals.labels(_LIMIT_NAMES[kind]).inc()
    metrics.quota_settled.labels("regular").inc(counts.settled - counts.late)
    metrics.quota_settled.labels("late").inc(counts.late)

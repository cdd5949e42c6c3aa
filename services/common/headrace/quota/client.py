"""Calls to the quota keeper. What waits while one message is under way is the next message."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.bus import BusError, Messages, NoReply, subjects
from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace.errors import QuotaUnavailable
from headrace.internal.v1.quota_pb2 import (
    Confirm,
    DescribeQuota,
    QuotaCall,
    QuotaReply,
    QuotaRequest,
    QuotaResponse,
    Release,
    Reserve,
)
from headrace.telemetry.condition_log import ConditionLog

log = logging.getLogger(__name__)

DEADLINE_S = 2.0
"""How long a call may take altogether, its repeats included."""
NO_ANSWER = f"the quota keeper has not answered in {DEADLINE_S:g} s"
TRY_S = 0.75
"""Longest wait for the answer to one message; a keeper answers in milliseconds, but one that has
died never does, and the next one does not know of the message."""
RETRY_S = 0.05
NOTICE_WAIT_S = 0.5
"""Longest that confirmations and releases wait for a call to go along with."""
RETRY_AFTER_S = 3.0
"""What callers are given that no keeper has answered: after the life of its lease there is one."""
SKEW_MS = 500
"""Difference of clocks up to which the times of limits stay as the keeper has sent them."""
MAX_CALLS = 256
"""Of one message."""
MAX_NOTICES = 100_000
"""Confirmations and releases that wait for a keeper. Beyond, the oldest are forgotten: then the
keeper returns those reservations, and charges their requests when they end."""


@dataclass(slots=True, eq=False)
class _Call:
    message: QuotaCall
    until_s: float
    reply: asyncio.Future[QuotaReply]


class QuotaClient:
    """The quota keeper as a process calls it, from many tasks at once; `run` must be running.

    Every call is answered, or fails, within `DEADLINE_S`; once no message was answered for so long,
    after one message.

        client = QuotaClient(bus, "gateway-0", SystemClock())
        reply = await client.reserve(Reserve(reservation_id="r1.3f…", tenant="acme", …))
        if reply.HasField("refusal"): …   # nothing was charged
        …                                 # publish the request, then one of:
        client.confirm("r1.3f…", tenant="acme")
        client.release("r1.3f…", tenant="acme")
    """

    def __init__(self, messages: Messages, gateway_id: str, clock: Clock) -> None:
        self._messages, self._gateway_id, self._clock = messages, gateway_id, clock
        self._calls: deque[_Call] = deque()
        """In the order of their deadlines; those of the message under way included."""
        self._notices: deque[QuotaCall] = deque(maxlen=MAX_NOTICES)
        self._due = asyncio.Event()
        """There is something to send now."""
        self._notices_due: asyncio.TimerHandle | None = None
        self._is_running = True
        self._silent_since_s: float | None = None
        """When a message was first sent in vain, since the last that was answered."""
        self._silence = ConditionLog(log, active="quota.unanswered", cleared="quota.answered")

    async def reserve(self, reserve: Reserve) -> QuotaReply:
        """Reserve tokens; with totals above those reserved before under the same id, the rest.

        A repeated id is charged once. A caller that stops waiting, or gets QuotaUnavailable, does
        not know whether anything was reserved: it must `release`, unless its request runs already.

        Returns:
            With `refusal`: nothing was charged. Else with the state of every limit that applies.

        Raises:
            QuotaUnavailable: no keeper has answered within `DEADLINE_S`.
        """
        return await self._call(QuotaCall(reserve=reserve))

    async def describe(self, describe: DescribeQuota) -> QuotaReply:
        """Return the state of every limit that applies.

        Raises:
            QuotaUnavailable: no keeper has answered within `DEADLINE_S`.
        """
        return await self._call(QuotaCall(describe=describe))

    def confirm(self, reservation_id: str, *, tenant: str) -> None:
        """Report that the request is stored: its reservation lasts until its usage is known.

        It is sent until a keeper has it. Without it, the reservation ends 30 s after it was made.
        """
        confirm = Confirm(reservation_id=reservation_id, tenant=tenant)
        self._add_notice(QuotaCall(confirm=confirm))

    def release(self, reservation_id: str, *, tenant: str) -> None:
        """Return what is reserved for a request that will never be stored. Sent as `confirm`."""
        release = Release(reservation_id=reservation_id, tenant=tenant)
        self._add_notice(QuotaCall(release=release))

    async def run(self) -> None:
        """Send what waits, until cancelled; then every call fails at once."""
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                while self._calls or self._notices:
                    await self._send_next()
        finally:
            self._is_running = False
            for call in self._calls:
                _fail(call.reply, "this process shuts down")

    async def _call(self, message: QuotaCall) -> QuotaReply:
        reply: asyncio.Future[QuotaReply] = asyncio.get_running_loop().create_future()
        if not self._is_running:
            _fail(reply, "this process shuts down")
        self._calls.append(_Call(message, self._clock.monotonic_s() + DEADLINE_S, reply))
        self._due.set()
        return await reply

    def _add_notice(self, message: QuotaCall) -> None:
        self._notices.append(message)
        if self._notices_due is None:
            loop = asyncio.get_running_loop()
            self._notices_due = loop.call_later(NOTICE_WAIT_S, self._due.set)

    async def _send_next(self) -> None:
        """Send one message; what was not answered stays first in its queue."""
        if self._notices_due is not None:
            self._notices_due.cancel()
            self._notices_due = None
        self._drop_expired()
        notices = list(itertools.islice(self._notices, MAX_CALLS // 2))
        waiting = (call for call in self._calls if not call.reply.done())
        calls = list(itertools.islice(waiting, MAX_CALLS - len(notices)))
        if not notices and not calls:
            return
        messages = [*notices, *(call.message for call in calls)]
        timeout_s = TRY_S
        if calls:
            timeout_s = min(TRY_S, max(0.0, calls[0].until_s - self._clock.monotonic_s()))
        replies = await self._try_send(messages, timeout_s)
        if replies is None:
            self._fail_if_silent(calls)
            return
        for notice in notices:
            if self._notices and self._notices[0] is notice:
                self._notices.popleft()
        for call, reply in zip(calls, replies[len(notices) :], strict=True):
            if not call.reply.done():
                call.reply.set_result(reply)

    async def _try_send(
        self, calls: Iterable[QuotaCall], timeout_s: float
    ) -> list[QuotaReply] | None:
        request = QuotaRequest(gateway_id=self._gateway_id, calls=calls)
        now_s = self._clock.monotonic_s()
        try:
            # Why twice: the bus bounds the wait for the answer, not that for room to send.
            async with asyncio.timeout(timeout_s + RETRY_S):
                answer = await self._messages.request(
                    subjects.QUOTA, request.SerializeToString(), timeout_s=timeout_s
                )
            response = QuotaResponse.FromString(answer)
            if len(response.replies) != len(request.calls):
                raise NoReply(f"{len(response.replies)} replies to {len(request.calls)} calls")
        except (BusError, DecodeError, TimeoutError) as error:
            self._silence.active(
                now_s, why=str(error) or "no room to send", calls=len(request.calls)
            )
            await asyncio.sleep(min(RETRY_S, timeout_s))
            recheck_cancelled()
            return None
        self._silence.cleared(now_s)
        self._silent_since_s = None
        self._to_own_clock(response)
        return list(response.replies)

    def _fail_if_silent(self, calls: Iterable[_Call]) -> None:
        """Fail calls that were sent in vain, if others have waited for a whole deadline before.

        Why: each of them would wait as long, and so many wait at once where callers keep coming.
        """
        now_s = self._clock.monotonic_s()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        if now_s - self._silent_since_s >= DEADLINE_S:
            for call in calls:
                _fail(call.reply, NO_ANSWER)

    def _to_own_clock(self, response: QuotaResponse) -> None:
        """Make the keeper's times those of this process: what callers wait for is exact."""
        ahead_ms = round(self._clock.unix_s() * 1000) - response.time_ms
        for reply in response.replies:
            if reply.HasField("refusal") and not reply.refusal.never:
                reply.refusal.retry_after_ms += ahead_ms
            if abs(ahead_ms) > SKEW_MS:
                for limit in reply.limits:
                    limit.reset_ms += ahead_ms if limit.reset_ms else 0

    def _drop_expired(self) -> None:
        """Drop the calls that are answered or given up, and fail those whose time is over."""
        now_s = self._clock.monotonic_s()
        while self._calls and (self._calls[0].reply.done() or self._calls[0].until_s <= now_s):
            reply = self._calls.popleft().reply
            _fail(reply, NO_ANSWER)


def _fail(reply: asyncio.Future[QuotaReply], why: str) -> None:
    if not reply.done():
        reply.set_exception(QuotaUnavailable(why, retry_after_s=RETRY_AFTER_S))

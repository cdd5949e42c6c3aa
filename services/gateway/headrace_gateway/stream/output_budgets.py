"""Output beyond what is reserved for a request: asked for before it is made, waited for if refused.

A request with `max_tokens` 1500 begins with 512 reserved output tokens, of all choices together:

    384 taken      the keeper is asked for 1024, while the worker runs on; granted: nothing pauses
    896 taken      it is asked for 1500, and refuses: this minute's tokens are used up
    1024 taken     the next token is not taken. The attempt is fenced, which stops its worker, and
                   the leader is notified that the request waits for quota: it runs nowhere
    5 s later      asked again, as every 5 s, until it is granted or the deadline passes
    granted        the leader is notified, and dispatches it with its 1024 tokens; the token that
                   was not taken is made again, equal

Where the keeper refuses for the day, for the month or for ever, the request ends with that error
once it has used up what it has. A gateway that takes a request over does not know what was granted
before: it asks for what comes after the output that there is. The keeper charges totals once.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

from headrace.errors import HeadraceError, QuotaUnavailable, RateLimitExceeded
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_gateway.base import metrics
from headrace_gateway.stream.lost_attempts import LostAttempts
from headrace_gateway.stream.open_request import OpenRequest, SlotBinding

log = logging.getLogger(__name__)

ASK_AT_PART = 4
"""The part of the tokens ahead that is left when more is asked for, as 128 of 512: a keeper answers
sooner than they are made."""
ASK_AGAIN_S = 5.0
"""At most. Why not as late as a refusal says: what ends before returns what it has not used."""


class Extends(Protocol):
    """`Quotas`, as it is used here."""

    @property
    def ahead_tokens(self) -> int:
        """How much output is reserved before it is made, of all choices together."""
        ...

    async def extend(self, record: RequestRecord, output_tokens: int) -> None: ...


class OutputBudgets:
    """Keeps the output of open requests within what is reserved for them."""

    def __init__(self, quotas: Extends, lost_attempts: LostAttempts) -> None:
        self._quotas, self._lost_attempts = quotas, lost_attempts
        self._asked: set[OpenRequest] = set()
        self._to_ask: asyncio.Queue[OpenRequest] = asyncio.Queue()

    def begin(self, open_request: OpenRequest) -> None:
        """Bound the output of a request that was opened, or taken over with some output."""
        record, output = open_request.record, open_request.output
        if not record.reservation_id or not record.output_budget:
            return
        self._allow(open_request, max(record.output_budget, output.output_tokens))
        if output.is_used_up:
            open_request.waits_for_quota = True
            self.ask(open_request)

    def ask(self, open_request: OpenRequest) -> None:
        """Ask for more output for a request, unless that is under way."""
        if open_request not in self._asked:
            self._asked.add(open_request)
            self._to_ask.put_nowait(open_request)

    def stop(self, binding: SlotBinding, worker_id: str) -> None:
        """Stop an attempt that has used up what is reserved, until there is more."""
        open_request = binding.open_request
        open_request.waits_for_quota = True
        self._lost_attempts.stop_for_quota(binding, worker_id)
        metrics.quota_pauses_total.labels(open_request.record.model).inc()
        log.info("request.waits_for_quota", extra={"request_id": open_request.request_id})
        self.ask(open_request)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                open_request = await self._to_ask.get()
                tasks.create_task(self._ask(open_request))

    async def _ask(self, open_request: OpenRequest) -> None:
        output = open_request.output
        try:
            while not output.ended:
                total = min(output.budget + self._quotas.ahead_tokens, output.most_tokens)
                try:
                    await self._quotas.extend(open_request.record, total)
                except (RateLimitExceeded, QuotaUnavailable) as refusal:
                    wait_s = min(refusal.retry_after_s or ASK_AGAIN_S, ASK_AGAIN_S)
                except HeadraceError as refusal:
                    if open_request.waits_for_quota:
                        open_request.fail(refusal)
                    # Why not now: what is reserved may be enough; it is asked again if not.
                    return
                else:
                    self._grant(open_request, total)
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await open_request.closed.wait()
        finally:
            self._asked.discard(open_request)

    def _grant(self, open_request: OpenRequest, total: int) -> None:
        self._allow(open_request, total)
        if open_request.waits_for_quota:
            open_request.waits_for_quota = False
            self._lost_attempts.go_on(open_request)

    def _allow(self, open_request: OpenRequest, total: int) -> None:
        open_request.output.allow(total, ask_at=total - self._quotas.ahead_tokens // ASK_AT_PART)

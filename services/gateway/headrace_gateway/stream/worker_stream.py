"""One worker's delivery stream without its transport: messages in, messages out.

A slot is bound from its opening until its ending is acknowledged or the slot is
cancelled: exactly one of the two is said for every binding. What a worker still says
about a slot it has not yet heard is cancelled finds no binding, and is passed over.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from headrace.errors import EngineFailed, RequestCancelled
from headrace.internal.v1.delivery_pb2 import (
    CachedPrompt,
    DeliverRequest,
    DeliverResponse,
    Ending,
    Opening,
    PromptLogprobs,
)
from headrace.rpc.status import from_status
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.base import metrics
from headrace_gateway.request.logprob_columns import UnequalColumns, by_row, read_run
from headrace_gateway.stream.open_request import SlotBinding
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.output_log import SenderFault, Verdict

log = logging.getLogger(__name__)

_FAILURES = (FinishReason.FINISH_REASON_ERROR, FinishReason.FINISH_REASON_CANCELLED)


class MalformedMessage(Exception):
    """The message breaks the protocol; so may all that follow on this stream."""


class OnFault(Protocol):
    def __call__(self, feed: SlotBinding, worker_id: str, error: EngineFailed) -> None:
        """The feed's attempt is of no use any more."""
        ...


class WorkerStream:
    def __init__(self, worker_id: str, requests: OpenRequests, on_fault: OnFault) -> None:
        self.worker_id = worker_id
        self._news = asyncio.Event()
        self._requests = requests
        self._on_fault = on_fault
        self._feeds: dict[int, SlotBinding] = {}
        self._response = DeliverResponse()
        self._finished = False

    @property
    def bound_slots(self) -> int:
        return len(self._feeds)

    def take(self, message: DeliverRequest) -> bool:
        """Relay one message; returns whether any token or vector of it was new.

        Raises:
            MalformedMessage: the columns differ in length.
        """
        for opening in message.openings:
            self._open(opening)
        try:
            for piece in message.prompt_logprobs:
                self._take_prompt(piece)
            for cached in message.cached_prompts:
                self._take_cached(cached)
            is_new = bool(message.slots) and self._take_tokens(message)
        except UnequalColumns as fact:
            raise MalformedMessage(str(fact)) from fact
        for ending in message.endings:
            is_new = self._end(ending) or is_new
        return is_new

    def cancel(self, slot: int) -> None:
        self._feeds.pop(slot, None)
        self._response.cancelled_slots.append(slot)
        self._news.set()

    async def response(self) -> DeliverResponse | None:
        """Wait for something to say to the worker, and take all of it; None after `finish`."""
        if not self._finished:
            await self._news.wait()
        self._news.clear()
        response, self._response = self._response, DeliverResponse()
        return response if response.ByteSize() else None

    def finish(self) -> None:
        """The worker says no more; `response` gives what is left, then None."""
        self._finished = True
        self._news.set()

    def broken(self) -> list[SlotBinding]:
        """The stream is gone: unbind every slot, and return what was bound."""
        feeds = list(self._feeds.values())
        self._feeds.clear()
        for feed in feeds:
            feed.outlet.unbind(feed)
        return feeds

    def _open(self, opening: Opening) -> None:
        if (old := self._feeds.pop(opening.slot, None)) is not None:
            old.outlet.unbind(old)
        outlet = self._requests.find(opening.request_id)
        if outlet is None:
            self.cancel(opening.slot)
            return
        feed = SlotBinding(self, opening.slot, outlet, opening.choice, opening.attempt)
        self._feeds[opening.slot] = feed
        try:
            if not outlet.bind(feed):
                self.cancel(opening.slot)
        except SenderFault as fault:
            self._fault(feed, fault)

    def _take_prompt(self, piece: PromptLogprobs) -> None:
        feed, run = self._feeds.get(piece.slot), read_run(piece.logprobs)
        if feed is None:
            return
        try:
            feed.outlet.relay.take_prompt(feed.choice, feed.attempt, piece.first_index, run)
        except SenderFault as fault:
            self._fault(feed, fault)

    def _take_cached(self, cached: CachedPrompt) -> None:
        if (feed := self._feeds.get(cached.slot)) is not None:
            feed.outlet.relay.take_cached(feed.choice, feed.attempt, cached.tokens)

    def _take_tokens(self, message: DeliverRequest) -> bool:
        slots, indices, token_ids = message.slots, message.indices, message.token_ids
        if not len(slots) == len(indices) == len(token_ids):
            raise MalformedMessage(
                f"columns of {len(slots)} slots, {len(indices)} indices, {len(token_ids)} tokens"
            )
        columns = zip(slots, indices, token_ids, by_row(message), strict=True)
        feeds, taken, is_new, late = self._feeds, Verdict.TAKEN, False, 0
        for slot, index, token_id, logprobs in columns:
            feed = feeds.get(slot)
            if feed is None:
                late += 1
                continue
            outlet = feed.outlet
            try:
                verdict = outlet.relay.take(feed.choice, feed.attempt, index, token_id, logprobs)
            except SenderFault as fault:
                self._fault(feed, fault)
                continue
            if verdict is taken:
                is_new = True
                outlet.wake()
            else:
                self._oddity(feed, verdict)
        if late:
            metrics.stale_tokens_total.inc(late)
        return is_new

    def _oddity(self, feed: SlotBinding, verdict: Verdict) -> None:
        match verdict:
            case Verdict.REPEATED:
                metrics.repeated_tokens_total.inc()
            case Verdict.MISMATCHED:
                metrics.replay_mismatch_total.inc()
            case Verdict.STALE:
                metrics.stale_tokens_total.inc()
                feed.outlet.unbind(feed)
                self.cancel(feed.slot)

    def _end(self, ending: Ending) -> bool:
        """Returns whether it brought a vector that is new."""
        feed = self._feeds.get(ending.slot)
        if feed is None:
            return False
        if ending.finish_reason in _FAILURES:
            self._end_in_failure(feed, ending)
            return False
        outlet = feed.outlet
        reason, output_tokens = ending.finish_reason, ending.output_tokens
        try:
            verdict = outlet.relay.end(
                feed.choice, feed.attempt, reason, output_tokens, ending.vector
            )
        except SenderFault as fault:
            self._fault(feed, fault)
            return False
        if verdict is not Verdict.TAKEN:
            self._oddity(feed, verdict)
        if verdict is not Verdict.STALE:
            self._acknowledge(feed)
            outlet.wake()
        return verdict is Verdict.TAKEN and bool(ending.vector)

    def _end_in_failure(self, feed: SlotBinding, ending: Ending) -> None:
        if not feed.outlet.relay.accepts(feed.attempt):
            self._oddity(feed, Verdict.STALE)
            return
        self._acknowledge(feed)
        if ending.HasField("error"):
            feed.outlet.fail(from_status(ending.error))
        elif ending.finish_reason == FinishReason.FINISH_REASON_CANCELLED:
            feed.outlet.fail(RequestCancelled("it was cancelled"))
        else:
            feed.outlet.fail(EngineFailed("the engine failed without saying why"))

    def _acknowledge(self, feed: SlotBinding) -> None:
        del self._feeds[feed.slot]
        feed.outlet.unbind(feed)
        self._response.acknowledged_slots.append(feed.slot)
        self._news.set()

    def _fault(self, feed: SlotBinding, fault: SenderFault) -> None:
        log.error(
            "delivery.sender_fault",
            extra={
                "worker_id": self.worker_id,
                "request_id": feed.outlet.request_id,
                "attempt": feed.attempt,
                "fault": str(fault),
            },
        )
        metrics.sender_faults_total.inc()
        self._on_fault(feed, self.worker_id, EngineFailed(f"worker {self.worker_id}: {fault}"))
        if self._feeds.get(feed.slot) is feed:  # an opening that was never bound to its outlet
            feed.outlet.unbind(feed)
            self.cancel(feed.slot)

"""Requests that have ended: what is done with their messages, and whose end is remembered, so that
a repeated message does not run them again."""

from __future__ import annotations

from dataclasses import replace

from headrace.bus import RESULT_KEPT_S
from headrace.errors import HeadraceError, RequestExists
from headrace.internal.v1.reports_pb2 import Settlement
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.request.usage import known_settlement, usage_record
from headrace_scheduler.state.events import Acknowledge, Command, SendNotice, StoreResult

REMEMBERED = 20_000


class SettledRequests:
    """The last `REMEMBERED` requests that have ended."""

    def __init__(self) -> None:
        self._sequences: dict[str, int | None] = {}
        """Place of its message in the stream, by request id; None while that is not read."""
        self._result_until_s: dict[str, float] = {}
        """Until when the result is kept, at least, of those that run once and have one."""
        self._early: dict[str, Settlement] = {}
        """Settlements of those whose message is not read."""

    def add_ended(self, request: Request, *, has_result: bool) -> None:
        """Remember a request that has left; `has_result`: its result is stored and must stay."""
        self._remember(request.request_id, request.sequence)
        if has_result and request.record.once:
            kept_s = request.record.result_ttl.ToNanoseconds() / 1e9 or RESULT_KEPT_S
            self._result_until_s[request.request_id] = request.arrival_s + kept_s

    def has_result_for(self, request: Request) -> bool:
        """Return whether this one has the id of an earlier request that has a result.

        A gateway sends one if it looked before the first came and published after its end.
        """
        until_s = self._result_until_s.get(request.request_id)
        if until_s is None or not request.record.once or self.is_settled(request):
            return False
        return request.arrival_s < until_s

    def _remember(self, request_id: str, sequence: int | None) -> None:
        self._sequences.pop(request_id, None)
        self._result_until_s.pop(request_id, None)
        self._sequences[request_id] = sequence
        if len(self._sequences) > REMEMBERED:
            oldest = next(iter(self._sequences))
            del self._sequences[oldest]
            self._result_until_s.pop(oldest, None)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._sequences

    def is_settled(self, request: Request) -> bool:
        """Return whether its message is that of a settled request; the id may be used again."""
        request_id = request.request_id
        return request_id in self and self._sequences[request_id] in (None, request.sequence)

    def settle_early(self, settlement: Settlement) -> None:
        """Note a settlement that came before the message: after a take-over, in any order."""
        if settlement.request_id not in self:
            self._remember(settlement.request_id, None)
            self._early[settlement.request_id] = settlement

    def pop_early(self, request: Request) -> Settlement | None:
        """Return the settlement that came before this request's message, once."""
        return self._early.pop(request.request_id, None)

    def forget_early(self) -> None:
        """Forget these: all older messages are read, so the next of such an id is a new request."""
        self._early.clear()
        self._sequences = {i: s for i, s in self._sequences.items() if s is not None}


def acknowledge(request: Request) -> Acknowledge:
    """Remove a message that is another's again."""
    return Acknowledge(request.request_id, request.priority, request.acknowledgement)


def acknowledge_settled(request: Request, settlement: Settlement) -> Acknowledge:
    """Publish what a request has used by its settlement, then remove its message."""
    usage = None if request.is_probe else usage_record(request, settlement)
    return Acknowledge(request.request_id, request.priority, request.acknowledgement, usage)


def acknowledge_unsettled(request: Request, error: HeadraceError) -> Acknowledge:
    """The same of a request that no gateway has settled, by what is known of it."""
    settled = acknowledge_settled(request, known_settlement(request, error.code.number))
    return settled if request.is_probe else replace(settled, unsettled=request.record)


def store_result(request: Request, error: HeadraceError) -> StoreResult:
    """Store the error as the result of a request that no gateway has settled, before that."""
    return StoreResult(request.record, error, acknowledge_unsettled(request, error))


def abandoned(request: Request, error: HeadraceError) -> Acknowledge | StoreResult:
    """Return what is done with a request that no client waits for."""
    if request.record.attachable and not request.is_probe:
        # Why: a client that comes back nevertheless, when this leader is gone, finds this end, and
        # not a request that goes on beyond what was published.
        return store_result(request, error)
    return acknowledge_unsettled(request, error)


def refuse_duplicate(request: Request, known: Request | None) -> list[Command]:
    """Notify a gateway that the id belongs to another request, `known` if that is live.

    Sent once: if the notice is lost, the gateway's own check of deadlines ends the request.
    """
    fact = f"there is a request with the id {request.request_id}"
    error = RequestExists(fact, field="request_id")
    removed = acknowledge_settled(request, Settlement(code=error.code.number))
    if known is not None and known.record.arrival == request.record.arrival:
        # It is that request, stored twice: its gateway did not know that it was stored.
        removed = acknowledge(request)
    return [removed, SendNotice(request.gateway_id, ((request.request_id, error),), ())]

"""Requests whose end is remembered, so that a repeated message does not run them again."""

from __future__ import annotations

from headrace.bus import RESULT_KEPT_S
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.events import Submitted

REMEMBERED = 20_000


class SettledRequests:
    def __init__(self) -> None:
        self._sequences: dict[str, int | None] = {}
        """By request id, where its message stood in the stream; None while that is not read."""
        self._answered: dict[str, float] = {}
        """Until when the result is kept, at least, of those that run once and have one."""

    def add_ended(self, request: Request, *, answered: bool) -> None:
        """It is gone; `answered`: what it came to is kept, and nothing is to replace it."""
        self._remember(request.request_id, request.sequence)
        if answered and request.record.once:
            kept_s = request.record.result_ttl.ToNanoseconds() / 1e9 or RESULT_KEPT_S
            self._answered[request.request_id] = request.arrival_s + kept_s

    def has_result_for(self, event: Submitted) -> bool:
        """Whether this is another message of an id whose result is kept: a gateway that had looked
        before the first came, and published after its end."""
        request_id = event.record.request_id
        until_s = self._answered.get(request_id)
        if until_s is None or not event.record.once or self.is_settled(request_id, event.sequence):
            return False
        return event.arrival_s < until_s

    def _remember(self, request_id: str, sequence: int | None) -> None:
        self._sequences.pop(request_id, None)
        self._answered.pop(request_id, None)
        self._sequences[request_id] = sequence
        if len(self._sequences) > REMEMBERED:
            oldest = next(iter(self._sequences))
            del self._sequences[oldest]
            self._answered.pop(oldest, None)

    def knows(self, request_id: str) -> bool:
        return request_id in self._sequences

    def is_settled(self, request_id: str, sequence: int) -> bool:
        """Whether this message is the settled request's; an id may be used again."""
        return self.knows(request_id) and self._sequences[request_id] in (None, sequence)

    def settle_early(self, request_id: str) -> None:
        """Settled before its message was read: after a take-over these come in any order."""
        if request_id not in self._sequences:
            self._remember(request_id, None)

    def forget_early(self) -> None:
        """All messages from before the take-over are read: a new one of such an id is new."""
        self._sequences = {i: s for i, s in self._sequences.items() if s is not None}

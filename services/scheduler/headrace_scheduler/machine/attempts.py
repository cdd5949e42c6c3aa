"""When failures end a request: one that fails wherever it is taken for their cause."""

from __future__ import annotations

from headrace.errors import AttemptsExhausted
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.events import PublishDeadLetter
from headrace_scheduler.state.live import LiveRequests


def is_on_last_attempt(live: LiveRequests, request: Request) -> bool:
    """One more failure without headway ends it."""
    return 0 < request.record.failures >= live.settings.max_attempts - 1


def end_if_exhausted(live: LiveRequests, request: Request, *, now_s: float) -> bool:
    """Whether its attempts are used up; then it is ended, and kept as a dead letter."""
    if (failures := request.record.failures) < live.settings.max_attempts:
        return False
    message = f"failed on {failures} attempts; the last: {request.last_failure}"
    live.command(PublishDeadLetter(request.record.SerializeToString(), message, failures))
    live.end(request, AttemptsExhausted(message), now_s=now_s)
    return True

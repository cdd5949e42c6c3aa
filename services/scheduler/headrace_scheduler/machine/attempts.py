"""When failures end a request: one that fails on every worker is taken for the cause."""

from __future__ import annotations

from headrace.errors import AttemptsExhausted
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.events import PublishDeadLetter
from headrace_scheduler.state.live import LiveRequests


def is_on_last_attempt(live: LiveRequests, request: Request) -> bool:
    """Return whether one more failure without progress ends it."""
    return 0 < request.record.failures >= live.settings.max_attempts - 1


def end_if_exhausted(live: LiveRequests, request: Request, *, now_s: float) -> bool:
    """End a request whose attempts are used up and publish it as a dead letter.

    Returns:
        Whether it was ended.
    """
    if (failures := request.record.failures) < live.settings.max_attempts:
        return False
    message = f"failed on {failures} attempts; the last: {request.last_failure}"
    live.command(PublishDeadLetter(request.record.SerializeToString(), message, failures))
    live.end(request, AttemptsExhausted(message), now_s=now_s)
    return True

"""Records what one client receives of one stream."""

from __future__ import annotations

from collections.abc import Callable

from headrace.chaos.history import (
    UNREACHABLE,
    ChoiceFinished,
    ClientClosed,
    DeltaReceived,
    EventLog,
    RequestRejected,
    RequestSent,
    StreamBroken,
    StreamEnd,
    StreamEvent,
    StreamFailed,
    StreamFinished,
    StreamResumed,
    StreamStarted,
    UsageReceived,
)
from headrace.chaos.requests import ChaosRequest


class StreamRecorder:
    """Appends the events of one stream to the log, in whatever order they come.

    Only `broken` and `close` depend on earlier events.

    Args:
        close_after: deltas after which the client closes the stream; None: it reads to the end.
    """

    def __init__(
        self,
        log: EventLog,
        request: ChaosRequest,
        *,
        disturbed: bool,
        close_after: int | None = None,
    ) -> None:
        self._log = log
        self.stream = log.next_stream()
        self._close_after = close_after
        self.deltas = 0
        self.has_started = False
        self.was_rejected = False
        self._has_end = False
        most = int(request.sampling["max_tokens"])
        self._append(RequestSent, request.number, request.api, request.n, most, disturbed)

    @property
    def should_close(self) -> bool:
        """Whether the client is to close the stream now."""
        return self._close_after is not None and self.deltas >= self._close_after

    @property
    def is_over(self) -> bool:
        return self._has_end or self.should_close

    def started(self, request_id: str = "") -> None:
        self.has_started = True
        self._append(StreamStarted, request_id)

    def delta(
        self,
        choice: int,
        text: str,
        token_ids: list[int] | None = None,
        first_index: int | None = None,
    ) -> None:
        self.deltas += 1
        self._append(DeltaReceived, choice, text, token_ids or [], first_index)

    def choice_finished(self, choice: int, reason: str) -> None:
        self._append(ChoiceFinished, choice, reason)

    def usage(self, prompt_tokens: int, output_tokens: int) -> None:
        self._append(UsageReceived, prompt_tokens, output_tokens)

    def resumed(self, reason: str) -> None:
        """The stream broke off; what follows is the rest of it."""
        self._append(StreamResumed, reason)

    def finished(self) -> None:
        self._append(StreamFinished)

    def failed(self, code: str, message: str) -> None:
        self._append(StreamFailed, code, message)

    def rejected(self, code: str, message: str) -> None:
        self.was_rejected = True
        self._append(RequestRejected, code, message)

    def broken(self, reason: str) -> None:
        """The transport failed; after an end that changes nothing."""
        if self._has_end:
            return
        if self.has_started:
            self._append(StreamBroken, reason)
        else:
            self.rejected(UNREACHABLE, reason)

    def close(self) -> None:
        """The client reads no more."""
        if not self.should_close:
            self.broken("ended without a finish")
        elif not self._has_end:
            self._append(ClientClosed)

    def _append(self, kind: Callable[..., StreamEvent], *columns: object) -> None:
        event = kind(self._log.now_s, self.stream, *columns)
        self._has_end = self._has_end or isinstance(event, StreamEnd)
        self._log.append(event)

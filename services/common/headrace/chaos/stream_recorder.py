"""Writes one stream into the ledger."""

from __future__ import annotations

from headrace.chaos.history import (
    UNREACHABLE,
    ChoiceFinished,
    ClientClosed,
    DeltaReceived,
    EventLog,
    RequestRejected,
    RequestSent,
    StreamBroken,
    StreamFailed,
    StreamFinished,
    StreamResumed,
    StreamStarted,
    UsageReceived,
)
from headrace.chaos.requests import ChaosRequest


class StreamRecorder:
    """Notes what is seen, wrong order included; only `over` and `broke` mind what came before.

    Args:
        leave_after: pieces after which the client leaves; None to stay to the end.
    """

    def __init__(
        self,
        ledger: EventLog,
        ask: ChaosRequest,
        *,
        disturbed: bool,
        leave_after: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._stream = ledger.next_stream()
        self._leave_after = leave_after
        self.pieces = 0
        self._has_end = False
        self.has_begun = False
        self.was_refused = False
        ledger.note(
            RequestSent(
                ledger.now_s, self._stream, ask.number, ask.door, ask.n, disturbed=disturbed
            )
        )

    @property
    def leaves(self) -> bool:
        return self._leave_after is not None and self.pieces >= self._leave_after

    def accepted(self, request_id: str = "") -> None:
        self.has_begun = True
        self._ledger.note(StreamStarted(self._ledger.now_s, self._stream, request_id))

    def said(
        self,
        choice: int,
        text: str,
        token_ids: list[int] | None = None,
        first_index: int | None = None,
    ) -> None:
        self.pieces += 1
        now_s = self._ledger.now_s
        self._ledger.note(
            DeltaReceived(now_s, self._stream, choice, text, token_ids or [], first_index)
        )

    def choice_ended(self, choice: int, reason: str) -> None:
        self._ledger.note(ChoiceFinished(self._ledger.now_s, self._stream, choice, reason))

    def counted(self, prompt_tokens: int, output_tokens: int) -> None:
        self._ledger.note(
            UsageReceived(self._ledger.now_s, self._stream, prompt_tokens, output_tokens)
        )

    def ended(self) -> None:
        self._has_end = True
        self._ledger.note(StreamFinished(self._ledger.now_s, self._stream))

    def failed(self, code: str, message: str) -> None:
        self._has_end = True
        self._ledger.note(StreamFailed(self._ledger.now_s, self._stream, code, message))

    def refused(self, code: str, message: str) -> None:
        self._has_end = self.was_refused = True
        self._ledger.note(RequestRejected(self._ledger.now_s, self._stream, code, message))

    def broke(self, how: str) -> None:
        """The transport failed; after a good end that is nobody's loss."""
        if self._has_end:
            return
        if self.has_begun:
            self._has_end = True
            self._ledger.note(StreamBroken(self._ledger.now_s, self._stream, how))
        else:
            self.refused(UNREACHABLE, how)

    def returned(self, how: str) -> None:
        """It broke off, and what follows is the rest."""
        self._ledger.note(StreamResumed(self._ledger.now_s, self._stream, how))

    @property
    def is_over(self) -> bool:
        """Nothing more can come."""
        return self._has_end or self.leaves

    def over(self) -> None:
        """Nothing more is read."""
        if self._has_end:
            return
        if self.leaves:
            self._has_end = True
            self._ledger.note(ClientClosed(self._ledger.now_s, self._stream))
        else:
            self.broke("it just ended")

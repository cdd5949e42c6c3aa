"""Requests whose end is remembered, so that a repeated message does not run them again."""

from __future__ import annotations

REMEMBERED = 20_000


class Settled:
    def __init__(self) -> None:
        self._sequences: dict[str, int | None] = {}
        """By request id, where its message stood in the stream; None while that is not read."""

    def remember(self, request_id: str, sequence: int | None) -> None:
        self._sequences.pop(request_id, None)
        self._sequences[request_id] = sequence
        if len(self._sequences) > REMEMBERED:
            del self._sequences[next(iter(self._sequences))]

    def knows(self, request_id: str) -> bool:
        return request_id in self._sequences

    def has(self, request_id: str, sequence: int) -> bool:
        """Whether this message is the settled request's; an id may be used again."""
        return self.knows(request_id) and self._sequences[request_id] in (None, sequence)

    def settle_ahead(self, request_id: str) -> None:
        """Settled before its message was read: after a take-over these come in any order."""
        if request_id not in self._sequences:
            self.remember(request_id, None)

    def forget_ahead(self) -> None:
        """All messages from before the take-over are read: a new one of such an id is new."""
        self._sequences = {i: s for i, s in self._sequences.items() if s is not None}

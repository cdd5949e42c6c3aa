"""Resuming a stream that breaks off: the position that was read, and when to try again.

A stream of two choices, token by token, and the `after` that resumes it:

    event read                                       position
    started(request_id="r1")                         "0.0"
    delta(choice=0, first_index=0, token_ids=[7,8])  "2.0"
    delta(choice=1, first_index=0, token_ids=[9])    "2.1"
    delta(choice=0, first_index=2, token_ids=[5],
          finish_reason=STOP)                        "3f.1"
    connection lost                                  AttachRequest("r1", after="3f.1")
    delta(choice=1, first_index=1, token_ids=[4])    "3f.2"
"""

from __future__ import annotations

from headrace.errors import GatewayDraining, GatewayUnreachable
from headrace.v1.generation_pb2 import StreamGenerateResponse
from headrace.v1.requests_pb2 import AttachRequestRequest

RESUME_WITHIN_S = 30.0
"""How long after its last event a broken stream is retried; schedulers keep it about as long."""
RESUME_PAUSE_S = 0.1
RESUMABLE_ERRORS = (GatewayDraining, GatewayUnreachable)
"""Errors that end a stream at its gateway only: another gateway has the rest."""


class StreamPosition:
    """How far a native stream was read.

    Args:
        after: the position at which reading begins; empty is the beginning.
    """

    def __init__(self, choices: int, after: str = "") -> None:
        self.request_id = ""
        """Empty until the stream has started: before that there is nothing to resume."""
        self._offsets = after.split(".") if after else ["0"] * choices

    def advance(self, event: StreamGenerateResponse) -> None:
        """Take account of an event that was read."""
        if event.HasField("started"):
            self.request_id = event.started.request_id
        elif event.HasField("delta"):
            delta = event.delta
            # Of a request that was sent elsewhere, how many choices it has is seen.
            self._offsets += ["0"] * (delta.choice + 1 - len(self._offsets))
            tokens = delta.first_index + len(delta.token_ids)
            self._offsets[delta.choice] = f"{tokens}{'f' if delta.finish_reason else ''}"

    @property
    def resume_request(self) -> AttachRequestRequest:
        """The call that reads on from here."""
        return AttachRequestRequest(request_id=self.request_id, after=".".join(self._offsets))

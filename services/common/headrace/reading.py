"""How far a client has read a native stream: what it needs to come back for the rest."""

from __future__ import annotations

from headrace.errors import GatewayDraining, GatewayUnreachable
from headrace.v1 import generation_pb2

BREAKS = (GatewayDraining, GatewayUnreachable)
"""Errors that end a stream at its gateway only: the rest may be had from another."""


class Reading:
    def __init__(self, choices: int) -> None:
        self.request_id = ""
        """Empty until the stream has begun: before that there is nothing to come back to."""
        self._places = ["0"] * choices

    def take(self, event: generation_pb2.StreamGenerateResponse) -> None:
        """One more event was read."""
        if event.HasField("started"):
            self.request_id = event.started.request_id
        elif event.HasField("delta"):
            delta = event.delta
            tokens = delta.first_index + len(delta.token_ids)
            self._places[delta.choice] = f"{tokens}{'f' if delta.finish_reason else ''}"

    @property
    def position(self) -> str:
        """`after` of AttachRequestRequest."""
        return ".".join(self._places)

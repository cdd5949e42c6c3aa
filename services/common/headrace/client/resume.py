"""How far a client has read a native stream: what it needs to come back for the rest."""

from __future__ import annotations

import time
from typing import cast

import grpc

from headrace.errors import GatewayDraining, GatewayUnreachable, HeadraceError
from headrace.rpc.status import can_be_resumed
from headrace.v1 import generation_pb2, requests_pb2

_RETURN_WITHIN_S = 30.0
"""A stream that broke off is tried for so long; schedulers keep it for about as long."""
RESUMABLE_ERRORS = (GatewayDraining, GatewayUnreachable)
"""Errors that end a stream at its gateway only: the rest may be had from another."""


class StreamPosition:
    def __init__(self, choices: int, after: str = "") -> None:
        """`after`: what was read before."""
        self.request_id = ""
        """Empty until the stream has begun: before that there is nothing to come back to."""
        self._places = after.split(".") if after else ["0"] * choices

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


class ResumableStream:
    """Where a stream of one choice is, for taking it up again when it breaks off."""

    def __init__(self, reattach: bool, after: str = "") -> None:
        self._reattach = reattach
        self._reading = StreamPosition(choices=1, after=after)
        self._heard_s = time.monotonic()

    def take(self, event: generation_pb2.StreamGenerateResponse) -> bool:
        """Whether it is news: what comes again begins by saying again what it is."""
        is_known = event.HasField("started") and bool(self._reading.request_id)
        self._reading.take(event)
        self._heard_s = time.monotonic()
        return not is_known

    def may_go_on(self, error: grpc.RpcError | HeadraceError) -> bool:
        # What the mesh refuses or fails with has details; a connection that broke has none.
        lost = isinstance(error, HeadraceError) or can_be_resumed(cast(grpc.aio.AioRpcError, error))
        in_time = time.monotonic() - self._heard_s < _RETURN_WITHIN_S
        return self._reattach and lost and in_time and bool(self._reading.request_id)

    def rest(self) -> requests_pb2.AttachRequestRequest:
        return requests_pb2.AttachRequestRequest(
            request_id=self._reading.request_id, after=self._reading.position
        )

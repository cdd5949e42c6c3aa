"""Reads a generation to its end, over the deaths of what stands between.

How a stream goes on, by what broke it:

    a gateway died       it is attached to at its position, through another gateway
    Envoy died           its gateway took that for a caller that left, and ended it: it runs again
                         under the same seed, and is read from its position; tokens that differ
                         from those that were read are an error, and are never handed out
    the call was lost    before its first event: if its request is found it is attached to; else the
                         call is sent again
"""

from __future__ import annotations

import time
from uuid import uuid4

from headrace.client.calls.retries import Retries, may_succeed
from headrace.client.calls.scripts import (
    END,
    Attempts,
    Close,
    Emit,
    GrpcCall,
    Next,
    Open,
    Script,
    Sleep,
)
from headrace.client.resume import (
    RESUMABLE_ERRORS,
    RESUME_PAUSE_S,
    RESUME_WITHIN_S,
    StreamPosition,
)
from headrace.client.unreachable import ConnectionLost
from headrace.errors import (
    HeadraceError,
    InternalError,
    RequestCancelled,
    RequestExists,
    RequestNotFound,
    SlowReader,
)
from headrace.rpc.status import from_status
from headrace.v1.generation_pb2 import GenerateRequest, StreamGenerateResponse
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from headrace.v1.requests_pb2 import AttachRequestRequest
from headrace.v1.requests_pb2_grpc import RequestServiceStub


class GenerationCalls:
    """Makes the calls of a stream."""

    def __init__(self, generation: GenerationServiceStub, requests: RequestServiceStub) -> None:
        self._generation, self._requests = generation, requests

    def begin(self, request: GenerateRequest) -> GrpcCall:
        return GrpcCall(self._generation.StreamGenerate, request, repeatable=False)

    def attach(self, request: AttachRequestRequest) -> GrpcCall:
        return GrpcCall(self._requests.AttachRequest, request)


class GenerationReader:
    """One stream of events over all its connections.

    Args:
        calls: of the client.
        sought: a request to send, or one that runs, with the position from which it is read.
        retries: of the calls before the first event.
        reattach: False: what breaks the stream is raised.
    """

    def __init__(
        self,
        calls: GenerationCalls,
        sought: GenerateRequest | AttachRequestRequest,
        retries: Retries,
        *,
        reattach: bool = True,
    ) -> None:
        self._calls, self._sought, self._reattach = calls, sought, reattach
        choices = max(1, sought.n) if isinstance(sought, GenerateRequest) else 1
        after = "" if isinstance(sought, GenerateRequest) else sought.after
        self._position = StreamPosition(choices, after)
        self._attempts, self._runs = Attempts(retries), Attempts(retries)
        self._was_lost = self._has_ended = False
        self._last_event_s = self._lost_s = 0.0
        self._seed: int | None = None
        self._token_ids: list[list[int]] = [[] for _ in range(choices)]
        self._opened: list[object] = []

    def read(self) -> Script[None]:
        """Emit the events: `started` once, each token once, `finish` last."""
        call: GrpcCall | None = self._first_call()
        while True:
            try:
                yield from self._read(call)
                return
            except HeadraceError as error:
                error.request_id = self._position.request_id or self._sought.request_id
                pause_s = self._pause_s(error)
                call = self._next_call(error)
            while self._opened:
                yield Close(self._opened.pop())
            yield Sleep(pause_s)

    def _read(self, call: GrpcCall | None) -> Script[None]:
        stream = (yield from self._run_again()) if call is None else (yield from self._open(call))
        while (event := (yield Next(stream))) is not END:
            if self._is_new(event):
                yield Emit(event)

    def _open(self, call: GrpcCall) -> Script[object]:
        stream = yield Open(call)
        self._opened.append(stream)
        return stream

    def _is_new(self, event: StreamGenerateResponse) -> bool:
        """Take account of an event; False for the `started` that an attached stream repeats."""
        is_repeat = event.HasField("started") and bool(self._position.request_id)
        self._position.advance(event)
        # Why not what every connection repeats: it would put off the end of the retries for ever.
        if not (is_repeat or event.HasField("finish")):
            self._last_event_s = time.monotonic()
        if event.HasField("started"):
            self._seed = event.started.seed
        elif event.HasField("delta"):
            more = event.delta.choice + 1 - len(self._token_ids)
            self._token_ids += [[] for _ in range(more)]
            self._token_ids[event.delta.choice] += event.delta.token_ids
        elif event.HasField("finish") and event.finish.HasField("error"):
            error = from_status(event.finish.error)
            self._has_ended = not isinstance(error, RESUMABLE_ERRORS)
            raise error
        return not is_repeat

    def _first_call(self) -> GrpcCall:
        if isinstance(self._sought, GenerateRequest):
            return self._calls.begin(self._sought)
        return self._calls.attach(self._sought)

    def _pause_s(self, error: HeadraceError) -> float:
        """Return the time until the next call; raise the error if there is none."""
        if self._position.request_id:
            in_time = time.monotonic() - self._last_event_s < RESUME_WITHIN_S
            if not (self._reattach and in_time and (self._passes(error) or self._left(error))):
                raise error
            if self._passes(error):
                self._was_lost, self._lost_s = True, time.monotonic()
            return RESUME_PAUSE_S if error.retry_after_s is None else min(1.0, error.retry_after_s)
        is_named = bool(self._sought.request_id)
        if self._attempts.number > 1 and isinstance(error, RequestExists | RequestNotFound):
            self._attempts.count(error)
            return RESUME_PAUSE_S
        pause_s = self._attempts.pause_s(error, repeatable=is_named)
        if isinstance(error, ConnectionLost):
            self._was_lost, self._lost_s = True, time.monotonic()
        return pause_s

    def _next_call(self, error: HeadraceError) -> GrpcCall | None:
        """Return the call after this error; None: the request runs again."""
        if self._position.request_id:
            if not self._left(error):
                return self._calls.attach(self._position.resume_request)
            self._runs.count(error)  # each is charged
            return None
        if isinstance(self._sought, AttachRequestRequest):
            return self._first_call()  # from its position
        if isinstance(error, RequestExists) or (
            self._was_lost and not isinstance(error, RequestNotFound)
        ):
            name = self._sought.request_id
            return self._calls.attach(AttachRequestRequest(request_id=name))
        return self._first_call()

    def _passes(self, error: HeadraceError) -> bool:
        """Whether the rest can be read later. What a request ended with it says each time."""
        return isinstance(error, (ConnectionLost, *RESUMABLE_ERRORS)) or (
            not self._has_ended and may_succeed(error, repeatable=True)
        )

    def _left(self, error: HeadraceError) -> bool:
        """Whether the request is gone as a lost connection was taken for its caller's end."""
        gone = isinstance(error, RequestCancelled | RequestNotFound)
        again = isinstance(self._sought, GenerateRequest) and not self._sought.detached
        lately = self._was_lost and time.monotonic() - self._lost_s < RESUME_WITHIN_S
        return gone and again and lately and not isinstance(error, SlowReader)

    def _run_again(self) -> Script[object]:
        """Run the request again until it has what was read; return the stream of the rest."""
        self._has_ended = False
        request = GenerateRequest()
        request.CopyFrom(self._sought)  # type: ignore[arg-type]  # only such a request runs again
        request.seed, request.request_id = self._seed or 0, uuid4().hex
        first = yield from self._open(self._calls.begin(request))
        behind, has_started = [len(ids) for ids in self._token_ids], False
        # Why not without its start: until then the mesh does not know it.
        while any(behind) or not has_started:
            event = yield Next(first)
            has_started |= event is not END and event.HasField("started")
            if event is END or event.HasField("finish"):
                break
            delta = event.delta
            read = self._token_ids[delta.choice]
            same = read[delta.first_index : delta.first_index + len(delta.token_ids)]
            if same != list(delta.token_ids)[: len(same)]:
                raise InternalError(
                    f"the stream cannot be continued: {delta.choice} of the second run differs from"
                    f" the first after {delta.first_index} tokens; send the request again"
                )
            self._last_event_s = time.monotonic()
            behind[delta.choice] = max(0, len(read) - delta.first_index - len(delta.token_ids))
        self._position.request_id = request.request_id
        self._was_lost = False
        # The first of the two still reads it, so that it does not end meanwhile.
        return (yield from self._open(self._calls.attach(self._position.resume_request)))

"""Clients that send one request and record all that comes of it, resuming a stream that breaks.

A stream whose gateway dies, as `OpenAIClient` reads it:

    POST /v1/completions                x-headrace-resume: true
    <- id: r1:0     {"choices": ...}    recorder.started(), recorder.delta(...)
    <- id: r1:1     {"choices": ...}    recorder.delta(...)
    <- connection lost                  recorder.resumed("ConnectionLost ...")
    POST /v1/completions                last-event-id: r1:1
    <- 503                              no gateway yet: again after 0.1 s
    POST /v1/completions                last-event-id: r1:1
    <- id: r1:2     {"choices": ...}    recorder.delta(...)
    <- [DONE]                           recorder.finished()
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc
from grpc_status import rpc_status

from headrace.bench.http1 import Answer, Connection, ConnectionLost, server_sent_events
from headrace.chaos.history import UNREACHABLE
from headrace.chaos.requests import Api, ChaosRequest, openai_body
from headrace.chaos.stream_recorder import StreamRecorder
from headrace.client.resume import RESUMABLE_ERRORS, RESUME_PAUSE_S, RESUME_WITHIN_S, StreamPosition
from headrace.rpc.status import can_be_resumed, from_rpc_error, from_status
from headrace.rpc.tls import Trust
from headrace.v1.common_pb2 import FinishReason, SamplingParameters
from headrace.v1.generation_pb2 import Delta, GenerateRequest, StreamGenerateResponse
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from headrace.v1.requests_pb2_grpc import RequestServiceStub

_SLOW_DELTAS = 8
SILENCE_TIMEOUT_S = 90.0
"""A stream without events for so long is broken: longer than a request may wait in its lane."""
_PATHS = {Api.CHAT: "/v1/chat/completions", Api.COMPLETIONS: "/v1/completions"}
_DONE = b"[DONE]"
_RESUMABLE_CODES = {error.reason.lower() for error in RESUMABLE_ERRORS}
_ENVOY_CODE = "gateway_unavailable"
"""Of the error that Envoy itself answers with when it reaches no gateway."""

_RESUMABLE = {"x-headrace-resume": "true"}
"""Header that requests events with ids."""

Call = grpc.aio.UnaryStreamCall[Any, StreamGenerateResponse]


class _Stream:
    """One request's stream over all its connections.

    Args:
        pause_s: after each of the first deltas; it makes a slow reader.
    """

    def __init__(self, recorder: StreamRecorder, pause_s: float) -> None:
        self.recorder, self._pause_s = recorder, pause_s
        self.last_id = ""
        """What resumes the stream; empty until there is something to resume."""
        self._now_s = asyncio.get_running_loop().time
        self._last_event_s = self._now_s()

    async def read_all(self, read: Callable[[], Awaitable[bool]]) -> None:
        """Call `read` for one connection after another while it returns True."""
        try:
            while await read():
                await asyncio.sleep(RESUME_PAUSE_S)
        finally:
            self.recorder.close()

    @property
    def can_resume(self) -> bool:
        in_time = self._now_s() - self._last_event_s < RESUME_WITHIN_S
        return bool(self.last_id) and not self.recorder.is_over and in_time

    def event_came(self, last_id: str, silence: asyncio.Timeout) -> None:
        self.last_id = last_id or self.last_id
        self._last_event_s = self._now_s()
        silence.reschedule(self._last_event_s + SILENCE_TIMEOUT_S)

    def broke(self, reason: str) -> bool:
        """Record that the connection was lost; return whether to resume."""
        if self.can_resume:
            self.recorder.resumed(reason)
            return True
        self.recorder.broken(reason)
        return False

    async def pause(self) -> None:
        if self._pause_s and self.recorder.deltas <= _SLOW_DELTAS:
            await asyncio.sleep(self._pause_s)


class OpenAIClient:
    """OpenAI's API as server-sent events; a connection for each request."""

    def __init__(
        self, url: str, model: str, *, api_key: str | None = None, trust: Trust | None = None
    ) -> None:
        self._url, self._model, self._api_key, self._trust = url, model, api_key, trust

    async def send(
        self, request: ChaosRequest, recorder: StreamRecorder, *, pause_s: float = 0.0
    ) -> None:
        """Send a request; record its stream to the end, or until `recorder.should_close`."""
        stream = _Stream(recorder, pause_s)
        await stream.read_all(lambda: self._read(request, stream))

    async def _read(self, request: ChaosRequest, stream: _Stream) -> bool:
        """Read one connection; return whether to resume."""
        connection = Connection(self._url, api_key=self._api_key, trust=self._trust)
        recorder = stream.recorder
        reason = "ended without a finish"
        resume = {"last-event-id": stream.last_id} if stream.last_id else _RESUMABLE
        try:
            async with asyncio.timeout(SILENCE_TIMEOUT_S) as silence:
                answer = await connection.post(
                    _PATHS[request.api], self._body(request), headers=resume
                )
                if answer.status == 503 and stream.can_resume:
                    return True
                if answer.status != 200:
                    await _record_rejection(answer, recorder)
                    return False
                if not recorder.has_started:
                    recorder.started(answer.headers.get("x-request-id", ""))
                async for event_id, data in server_sent_events(answer):
                    stream.event_came(event_id, silence)
                    if stream.can_resume and (code := _resumable_code(data)):
                        raise ConnectionLost(code)
                    _record_chunk(data, recorder)
                    if recorder.should_close:
                        return False
                    await stream.pause()
        except (OSError, ConnectionLost, ValueError) as error:
            # Also TimeoutError, which is an OSError.
            reason = f"{type(error).__name__} {error}"
        finally:
            await connection.close()
        return stream.broke(reason)

    def _body(self, request: ChaosRequest) -> bytes:
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(openai_body(request, self._model) | stream).encode()


async def _record_rejection(answer: Answer, recorder: StreamRecorder) -> None:
    whole = b"".join([piece async for piece in answer.body])
    try:
        error = json.loads(whole)["error"]
        code = UNREACHABLE if error["code"] == _ENVOY_CODE else str(error["code"])
        recorder.rejected(code, str(error["message"]))
    except (ValueError, KeyError, TypeError):
        recorder.rejected(UNREACHABLE, f"{answer.status} {whole[:200].decode(errors='replace')}")


def _resumable_code(data: bytes) -> str:
    """Return the code of an error that ends the stream at its gateway only, else empty."""
    if not data.startswith(b'{"error"'):
        return ""
    code = str(json.loads(data)["error"].get("code"))
    return code if code in _RESUMABLE_CODES else ""


def _record_chunk(data: bytes, recorder: StreamRecorder) -> None:
    if data == _DONE:
        recorder.finished()
        return
    chunk = json.loads(data)
    if error := chunk.get("error"):
        recorder.failed(str(error.get("code")), str(error.get("message")))
    for choice in chunk.get("choices", ()):
        text = choice.get("text") or choice.get("delta", {}).get("content")
        if text:
            recorder.delta(choice["index"], text)
        if reason := choice.get("finish_reason"):
            recorder.choice_finished(choice["index"], reason)
    if usage := chunk.get("usage"):
        recorder.usage(usage["prompt_tokens"], usage["completion_tokens"])


class GrpcClient:
    """The native API, with token ids and their indices."""

    def __init__(
        self, channel: grpc.aio.Channel, model: str, *, api_key: str | None = None
    ) -> None:
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._generation = GenerationServiceStub(channel)
        self._requests = RequestServiceStub(channel)
        self._model = model

    async def send(
        self, request: ChaosRequest, recorder: StreamRecorder, *, pause_s: float = 0.0
    ) -> None:
        """As `OpenAIClient.send`."""
        stream, position = _Stream(recorder, pause_s), StreamPosition(request.n)
        await stream.read_all(lambda: self._read(self._call(request, position), stream, position))

    def _call(self, request: ChaosRequest, position: StreamPosition) -> Call:
        if position.request_id:
            return self._requests.AttachRequest(position.resume_request, metadata=self._metadata)
        return self._generation.StreamGenerate(
            GenerateRequest(
                model=self._model,
                prompt=request.prompt,
                seed=request.seed,
                n=request.n,
                parameters=SamplingParameters(**request.sampling),
            ),
            metadata=self._metadata,
        )

    async def _read(self, call: Call, stream: _Stream, position: StreamPosition) -> bool:
        """Read one call; return whether to resume."""
        try:
            async with asyncio.timeout(SILENCE_TIMEOUT_S) as silence:
                async for event in call:
                    position.advance(event)
                    stream.event_came(position.request_id, silence)
                    if stream.can_resume and (reason := _resumable_reason(event)):
                        return stream.broke(reason)
                    _record_event(event, stream.recorder)
                    if stream.recorder.should_close:
                        return False
                    await stream.pause()
        except grpc.aio.AioRpcError as error:
            if can_be_resumed(error) and stream.can_resume:
                return stream.broke(str(error.details()))
            record_error(error, stream.recorder)
        except TimeoutError:
            stream.recorder.broken(f"silent for {SILENCE_TIMEOUT_S:g} s")
        finally:
            call.cancel()
        return False


class ChaosClient(Protocol):
    async def send(
        self, request: ChaosRequest, recorder: StreamRecorder, *, pause_s: float = 0.0
    ) -> None:
        """As `OpenAIClient.send`."""
        ...


def _resumable_reason(event: StreamGenerateResponse) -> str:
    """As `_resumable_code`."""
    if not event.finish.HasField("error"):
        return ""
    error = from_status(event.finish.error)
    return error.reason if isinstance(error, RESUMABLE_ERRORS) else ""


def _record_event(event: StreamGenerateResponse, recorder: StreamRecorder) -> None:
    match event.WhichOneof("event"):
        case "started":
            if not recorder.has_started:  # a resumed stream starts once more
                recorder.started(event.started.request_id)
        case "delta":
            _record_delta(event.delta, recorder)
        case "finish" if event.finish.HasField("error"):
            error = from_status(event.finish.error)
            recorder.failed(error.reason.lower(), error.message)
        case "finish":
            usage = event.finish.usage
            recorder.usage(usage.prompt_tokens, usage.output_tokens)
            recorder.finished()


def _record_delta(delta: Delta, recorder: StreamRecorder) -> None:
    if delta.text or delta.token_ids:
        recorder.delta(delta.choice, delta.text, list(delta.token_ids), delta.first_index)
    if delta.finish_reason:
        name = FinishReason.Name(delta.finish_reason)
        recorder.choice_finished(delta.choice, name.removeprefix("FINISH_REASON_").lower())


def record_error(error: grpc.aio.AioRpcError, recorder: StreamRecorder) -> None:
    """Record a call that failed: its rejection, or that its stream broke off, or began nowhere."""
    has_details = rpc_status.from_call(error) is not None  # type: ignore[arg-type]
    if recorder.has_started or not has_details:
        recorder.broken(f"{error.code().name} {error.details()}")
    else:
        rejection = from_rpc_error(error)
        recorder.rejected(rejection.reason.lower(), rejection.message)

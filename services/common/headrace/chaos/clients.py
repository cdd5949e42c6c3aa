"""The ways to ask: one request through one public door, and all that came of it noted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
from grpc_status import rpc_status

from headrace.bench.http1 import Answer, Connection, ConnectionLost
from headrace.chaos.history import UNREACHABLE
from headrace.chaos.requests import Api, ChaosRequest
from headrace.chaos.stream_recorder import StreamRecorder
from headrace.client.resume import RESUMABLE_ERRORS, StreamPosition
from headrace.rpc.addresses import grpc_target
from headrace.rpc.channels import aio_channel
from headrace.rpc.status import can_be_resumed, from_rpc_error, from_status
from headrace.v1 import (
    common_pb2,
    generation_pb2,
    generation_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
)

_SLOW_PIECES = 8
SILENCE_S = 90.0
"""A stream that says nothing for so long is lost: longer than a gateway's patience."""
RETURN_WITHIN_S = 30.0
"""A client whose stream broke off tries for so long to get on with it."""
_RETURN_PAUSE_S = 0.1
_PATHS = {Api.CHAT: "/v1/chat/completions", Api.COMPLETIONS: "/v1/completions"}
_DONE = b"[DONE]"
_BREAKS = {error.reason.lower() for error in RESUMABLE_ERRORS}
_OF_ENVOY = "gateway_unavailable"
"""Code of Envoy's own answer: it reached no gateway."""


Call = grpc.aio.UnaryStreamCall[Any, generation_pb2.StreamGenerateResponse]


class ChaosClient(Protocol):
    async def ask(self, ask: ChaosRequest, pen: StreamRecorder, *, pause_s: float = 0.0) -> None:
        """Note all that comes, to the end; `pause_s` after each of the first pieces makes a slow
        reader, for whom the rest piles up meanwhile.

        Returns early, and closes the stream, once the pen says that the client leaves.
        """
        ...


class Reconnect:
    """How a client comes back whose stream broke off."""

    def __init__(self) -> None:
        self.last_id = ""
        self._since_s = self._now_s()

    @property
    def headers(self) -> dict[str, str]:
        """Of a call to OpenAI's API: that its events are to have ids, or the last that came."""
        return {"last-event-id": self.last_id} if self.last_id else {"x-headrace-resume": "true"}

    def may(self, pen: StreamRecorder) -> bool:
        """It knows what to come back to, and has not tried for too long."""
        waited_s = self._now_s() - self._since_s
        return bool(self.last_id) and not pen.is_over and waited_s < RETURN_WITHIN_S

    def heard(self) -> None:
        self._since_s = self._now_s()

    async def pause(self) -> None:
        await asyncio.sleep(_RETURN_PAUSE_S)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


async def _linger(pen: StreamRecorder, pause_s: float) -> None:
    if pause_s and pen.pieces <= _SLOW_PIECES:
        await asyncio.sleep(pause_s)


class OpenAIClient:
    """OpenAI's API as server-sent events; a connection for each request."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model

    async def ask(self, ask: ChaosRequest, pen: StreamRecorder, *, pause_s: float = 0.0) -> None:
        returning = Reconnect()
        try:
            while await self._read(ask, pen, returning, pause_s):
                await returning.pause()
        finally:
            pen.over()

    async def _read(
        self, ask: ChaosRequest, pen: StreamRecorder, returning: Reconnect, pause_s: float
    ) -> bool:
        """One connection's part of the answer; True if the client should come back for more."""
        connection, how = Connection(self._url), "it just ended"
        try:
            async with asyncio.timeout(SILENCE_S) as silence:
                answer = await connection.post(
                    _PATHS[ask.door], self._body(ask), headers=returning.headers
                )
                if answer.status == 503 and returning.may(pen):
                    return True
                if answer.status != 200:
                    await _refused(answer, pen)
                    return False
                if not pen.has_begun:
                    pen.accepted()
                async for event_id, data in _events(answer):
                    silence.reschedule(asyncio.get_running_loop().time() + SILENCE_S)
                    returning.last_id = event_id or returning.last_id
                    returning.heard()
                    if returning.may(pen) and (reason := _break_of(data)):
                        raise ConnectionLost(reason)
                    _note_chunk(data, pen)
                    if pen.leaves:
                        return False
                    await _linger(pen, pause_s)
        except (OSError, ConnectionLost, ValueError) as error:
            # Also TimeoutError, which is an OSError.
            how = f"{type(error).__name__} {error}"
        finally:
            await connection.close()
        if returning.may(pen):
            pen.returned(how)
            return True
        pen.broke(how)
        return False

    def _body(self, ask: ChaosRequest) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": ask.seed,
            "n": ask.n,
            **ask.sampling,
        }
        if ask.door is Api.CHAT:
            body["messages"] = [{"role": "user", "content": ask.prompt}]
            if "logprobs" in ask.sampling:
                body |= {"logprobs": True, "top_logprobs": ask.sampling["logprobs"]}
        else:
            body["prompt"] = ask.prompt
        return json.dumps(body).encode()


async def _refused(answer: Answer, pen: StreamRecorder) -> None:
    whole = b"".join([piece async for piece in answer.body])
    try:
        error = json.loads(whole)["error"]
        code = UNREACHABLE if error["code"] == _OF_ENVOY else str(error["code"])
        pen.refused(code, str(error["message"]))
    except (ValueError, KeyError, TypeError):
        pen.refused(UNREACHABLE, f"{answer.status} {whole[:200].decode(errors='replace')}")


async def _events(answer: Answer) -> AsyncIterator[tuple[str, bytes]]:
    """Id and data of each."""
    rest = b""
    async for piece in answer.body:
        *whole, rest = (rest + piece).split(b"\n\n")
        for event in whole:
            fields = dict(line.partition(b": ")[::2] for line in event.split(b"\n"))
            if b"data" in fields:
                yield fields.get(b"id", b"").decode(), fields[b"data"]


def _break_of(data: bytes) -> str:
    """Why the stream ends at its gateway only; empty if it does not."""
    if not data.startswith(b'{"error"'):
        return ""
    code = str(json.loads(data)["error"].get("code"))
    return code if code in _BREAKS else ""


def _note_chunk(data: bytes, pen: StreamRecorder) -> None:
    if data == _DONE:
        pen.ended()
        return
    chunk = json.loads(data)
    if error := chunk.get("error"):
        pen.failed(str(error.get("code")), str(error.get("message")))
    for choice in chunk.get("choices", ()):
        text = choice.get("text") or choice.get("delta", {}).get("content")
        if text:
            pen.said(choice["index"], text)
        if reason := choice.get("finish_reason"):
            pen.choice_ended(choice["index"], reason)
    if usage := chunk.get("usage"):
        pen.counted(usage["prompt_tokens"], usage["completion_tokens"])


class GrpcClient:
    """headrace.v1 over gRPC, with token ids and their indices. `close` it."""

    def __init__(self, url: str, model: str) -> None:
        self._channel = aio_channel(grpc_target(url))
        self._stub = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._requests = requests_pb2_grpc.RequestServiceStub(self._channel)
        self._model = model

    async def ask(self, ask: ChaosRequest, pen: StreamRecorder, *, pause_s: float = 0.0) -> None:
        returning, reading = Reconnect(), StreamPosition(ask.n)
        try:
            while await self._read(self._call(ask, reading), pen, returning, reading, pause_s):
                await returning.pause()
        finally:
            pen.over()

    def _call(self, ask: ChaosRequest, reading: StreamPosition) -> Call:
        if reading.request_id:
            return self._requests.AttachRequest(
                requests_pb2.AttachRequestRequest(
                    request_id=reading.request_id, after=reading.position
                )
            )
        return self._stub.StreamGenerate(
            generation_pb2.GenerateRequest(
                model=self._model,
                prompt=ask.prompt,
                seed=ask.seed,
                n=ask.n,
                parameters=common_pb2.SamplingParameters(**ask.sampling),
            )
        )

    async def _read(
        self,
        call: Call,
        pen: StreamRecorder,
        returning: Reconnect,
        reading: StreamPosition,
        pause_s: float,
    ) -> bool:
        """One call's part of the answer; True if the client should come back for more."""
        try:
            async with asyncio.timeout(SILENCE_S) as silence:
                async for event in call:
                    silence.reschedule(asyncio.get_running_loop().time() + SILENCE_S)
                    reading.take(event)
                    returning.last_id = reading.request_id
                    returning.heard()
                    if returning.may(pen) and (reason := _break_in(event)):
                        pen.returned(reason)
                        return True
                    _note_event(event, pen)
                    if pen.leaves:
                        return False
                    await _linger(pen, pause_s)
        except grpc.aio.AioRpcError as error:
            if can_be_resumed(error) and returning.may(pen):
                pen.returned(str(error.details()))
                return True
            _note_status(error, pen)
        except TimeoutError:
            pen.broke(f"silent for {SILENCE_S:g} s")
        finally:
            call.cancel()
        return False

    async def close(self) -> None:
        await self._channel.close()


def _break_in(event: generation_pb2.StreamGenerateResponse) -> str:
    """As `_break_of`."""
    if not event.finish.HasField("error"):
        return ""
    error = from_status(event.finish.error)
    return error.reason if isinstance(error, RESUMABLE_ERRORS) else ""


def _note_event(event: generation_pb2.StreamGenerateResponse, pen: StreamRecorder) -> None:
    match event.WhichOneof("event"):
        case "started":
            if not pen.has_begun:  # Who comes back is told again what it reads.
                pen.accepted(event.started.request_id)
        case "delta":
            _note_delta(event.delta, pen)
        case "finish":
            usage = event.finish.usage
            if event.finish.HasField("error"):
                error = from_status(event.finish.error)
                pen.failed(error.reason.lower(), error.message)
            else:
                pen.counted(usage.prompt_tokens, usage.output_tokens)
                pen.ended()


def _note_delta(delta: generation_pb2.Delta, pen: StreamRecorder) -> None:
    if delta.text or delta.token_ids:
        pen.said(delta.choice, delta.text, list(delta.token_ids), delta.first_index)
    if delta.finish_reason:
        name = common_pb2.FinishReason.Name(delta.finish_reason)
        pen.choice_ended(delta.choice, name.removeprefix("FINISH_REASON_").lower())


def _note_status(error: grpc.aio.AioRpcError, pen: StreamRecorder) -> None:
    has_details = rpc_status.from_call(error) is not None  # type: ignore[arg-type]
    if pen.has_begun or not has_details:
        pen.broke(f"{error.code().name} {error.details()}")
    else:
        told = from_rpc_error(error)
        pen.refused(told.reason.lower(), told.message)

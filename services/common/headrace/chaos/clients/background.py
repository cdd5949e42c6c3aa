"""A client that sends background requests, and comes for their results."""

from __future__ import annotations

import asyncio

import grpc
from google.protobuf.duration_pb2 import Duration

from headrace.chaos.clients.streaming import SILENCE_TIMEOUT_S, record_error
from headrace.chaos.requests import ChaosRequest
from headrace.chaos.stream_recorder import StreamRecorder
from headrace.rpc.status import from_rpc_error, from_status
from headrace.v1.common_pb2 import FinishReason, RequestOutcome, SamplingParameters
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED, GetRequestRequest
from headrace.v1.requests_pb2_grpc import RequestServiceStub

_WAIT_S = 5
_PAUSE_S = 0.2
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class BackgroundClient:
    """The native API's background requests; each is read once it has ended."""

    def __init__(
        self, channel: grpc.aio.Channel, model: str, *, api_key: str | None = None
    ) -> None:
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._requests = RequestServiceStub(channel)
        self._model = model

    async def send(
        self, request: ChaosRequest, recorder: StreamRecorder, *, pause_s: float = 0.0
    ) -> None:
        """Send a request, and record its result as a stream of one piece for each choice."""
        try:
            created = await self._requests.CreateRequest(
                GenerateRequest(
                    model=self._model,
                    prompt=request.prompt,
                    seed=request.seed,
                    n=request.n,
                    parameters=SamplingParameters(**request.sampling),
                    detached=True,
                ),
                metadata=self._metadata,
            )
        except grpc.aio.AioRpcError as error:
            record_error(error, recorder)
            return
        recorder.started(created.request_id)
        try:
            async with asyncio.timeout(SILENCE_TIMEOUT_S):
                _record(await self._outcome(created.request_id), recorder)
        except grpc.aio.AioRpcError as error:
            recorder.failed(from_rpc_error(error).reason.lower(), str(error.details()))
        except TimeoutError:
            recorder.broken(f"no result within {SILENCE_TIMEOUT_S:g} s")

    async def _outcome(self, request_id: str) -> RequestOutcome:
        """Return what became of a request, once it has ended, from whichever gateway."""
        query = GetRequestRequest(request_id=request_id, wait=Duration(seconds=_WAIT_S))
        while True:
            try:
                found = await self._requests.GetRequest(query, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _RETRIED:
                    raise
                await asyncio.sleep(_PAUSE_S)
                continue
            if found.state == REQUEST_STATE_ENDED:
                return found.outcome


def _record(outcome: RequestOutcome, recorder: StreamRecorder) -> None:
    for choice in outcome.choices:
        if choice.text or choice.token_ids:
            recorder.delta(choice.index, choice.text, list(choice.token_ids), 0)
        if choice.finish_reason:
            name = FinishReason.Name(choice.finish_reason)
            recorder.choice_finished(choice.index, name.removeprefix("FINISH_REASON_").lower())
    if outcome.HasField("error"):
        error = from_status(outcome.error)
        recorder.failed(error.reason.lower(), error.message)
        return
    recorder.usage(outcome.usage.prompt_tokens, outcome.usage.output_tokens)
    recorder.finished()

"""OpenAI's paths, as Envoy's transcoder hands them over."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from headrace.clock import Clock
from headrace.errors import HeadraceError
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace.v1.models_pb2 import GetModelRequest
from headrace.v1.openai_pb2_grpc import OpenAIServiceServicer
from headrace_gateway.calls import Call, Context, call_of
from headrace_gateway.catalog import Catalog, ServedModel
from headrace_gateway.generation import ValidRequest
from headrace_gateway.intake import Intake
from headrace_gateway.limits import Limits
from headrace_gateway.native.ports import Fleet
from headrace_gateway.openai.bodies import Body, ChatBody, CompletionBody, parse
from headrace_gateway.openai.chunks import CHAT, COMPLETION, Chunks, Form, Head, whole
from headrace_gateway.openai.errors import error_body, http_status, retry_headers
from headrace_gateway.openai.wishes import wanted_chat, wanted_completion
from headrace_gateway.reply import Refusal, Reply, deliver, told
from headrace_gateway.tally import Tally
from headrace_gateway.transcript import Said
from headrace_gateway.wanted import Wanted

AnyBody = TypeVar("AnyBody", bound=Body)


class OpenAIVoice:
    def refusal(self, error: HeadraceError) -> Refusal:
        body = json.dumps(error_body(error)).encode()
        return Refusal(http_status(error), body, retry_headers(error))

    def failure(self, error: HeadraceError, usage: Usage | None) -> str:
        # No [DONE] follows: clients would take the answer for a good one.
        return f"data: {json.dumps(error_body(error))}\n\n"


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    form: Form
    head: Head
    chunks: Chunks
    eager: bool = False

    def opening(self) -> str:
        return self.chunks.opening()

    def said(self, news: Iterable[Said]) -> str:
        return self.chunks.said(news)

    def ending(self, usage: Usage) -> str:
        return self.chunks.ending(usage)

    def whole(self, outcome: RequestOutcome) -> bytes:
        return whole(self.form, self.head, outcome)


class OpenAIService(OpenAIServiceServicer):
    """Handlers write to their context, and are no generators: a generator that is waiting
    at a `yield` when its caller leaves is not told so, but only forgotten some time later."""

    def __init__(
        self, intake: Intake, catalog: Catalog, fleet: Fleet, limits: Limits, clock: Clock
    ) -> None:
        self._intake = intake
        self._catalog = catalog
        self._fleet = fleet
        self._limits = limits
        self._clock = clock

    async def ChatCompletions(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await self._complete(request.data, context, CHAT, ChatBody, wanted_chat)

    async def Completions(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await self._complete(request.data, context, COMPLETION, CompletionBody, wanted_completion)

    async def ListModels(self, request: Empty, context: Context) -> None:  # type: ignore[override]
        # A client that picks one of these should get an answer: models without a worker are
        # known under their own path, and requests for them wait.
        served_now = {name for worker in self._fleet.workers() for name in worker.models}
        known = self._catalog.all()
        models = [_model(served) for served in known if served.card.model in served_now]
        await self._look_up(context, lambda: {"object": "list", "data": models})

    async def GetModel(self, request: GetModelRequest, context: Context) -> None:  # type: ignore[override]
        await self._look_up(context, lambda: _model(self._catalog.get(request.model)))

    async def _look_up(self, context: Context, find: Callable[[], dict[str, Any]]) -> None:
        with Tally("openai") as tally:
            reply = Reply(context, OpenAIVoice(), call_of(context).request_id, tally)
            async with told(reply):
                await reply.send(json.dumps(find()).encode())

    async def _complete(
        self,
        data: bytes,
        context: Context,
        form: Form,
        kind: type[AnyBody],
        wanted: Callable[[AnyBody, Call], Wanted],
    ) -> None:
        call = call_of(context)
        with Tally("openai") as tally:
            reply = Reply(context, OpenAIVoice(), call.request_id, tally)
            async with told(reply):
                body = parse(kind, data, max_bytes=self._limits.max_body_bytes)
                tally.model = self._intake.known(body.model)
                answer = await self._intake.open(wanted(body, call))
                dialect = self._dialect(form, body, answer.request)
                await deliver(answer, reply, dialect, stream=bool(body.stream))

    def _dialect(self, form: Form, body: Body, request: ValidRequest) -> OpenAIDialect:
        head = Head(
            request.request_id,
            request.card.model,
            created=int(self._clock.unix_s()),
            fingerprint=f"fp_{request.card.weights_digest[:12]}",
        )
        options = body.stream_options
        counted = options is not None and bool(options.include_usage)
        chunks = Chunks(form, head, choices=request.n, include_usage=counted)
        return OpenAIDialect(form, head, chunks)


def _model(served: ServedModel) -> dict[str, Any]:
    card = served.card
    return {
        "id": card.model,
        "object": "model",
        "created": card.create_time.seconds,
        "owned_by": "headrace",
        # vLLM's field, which some clients read.
        "max_model_len": card.context_tokens,
    }

"""RestService: the native calls that have a body, as JSON through Envoy."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from headrace.errors import HeadraceError, InvalidRequest
from headrace.rpc.http_errors import error_headers
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import FinishReason, RequestOutcome, Usage
from headrace.v1.embeddings_pb2 import EmbedRequest, RerankRequest
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.models_pb2 import TokenizeRequest
from headrace.v1.rest_pb2 import RestAttachRequest, RestModelRequest
from headrace.v1.rest_pb2_grpc import RestServiceServicer
from headrace_gateway.api.http.deliver import comment, deliver
from headrace_gateway.api.http.endpoint import HttpCall, http_call
from headrace_gateway.api.http.errors import HttpResponse
from headrace_gateway.api.http.rejection import rejected_by, send_rejection
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.api.http.services import ApiServicer
from headrace_gateway.api.native.convert import generate_request, key_of_request
from headrace_gateway.api.native.embedding_service import embedded_inputs, rerank
from headrace_gateway.api.native.messages import (
    delta,
    finish,
    generate_response,
    queued_message,
    started,
)
from headrace_gateway.api.native.model_service import tokenize
from headrace_gateway.api.native.proto_json import parse
from headrace_gateway.api.native.vector_messages import send_embeddings
from headrace_gateway.base.calls import Context
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta
from headrace_gateway.output.position import EventIds, Offset
from headrace_gateway.quota.headers import LimitHeaders, rate_limit_headers
from headrace_gateway.request.generation import Queued, RequestDescription
from headrace_gateway.resume.open_or_resume import resume_position

AnyRequest = TypeVar("AnyRequest", GenerateRequest, TokenizeRequest, EmbedRequest, RerankRequest)


def as_json(message: Message) -> str:
    """Return JSON as Envoy prints it for calls that it transcodes: snake_case, zeros included."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=None,
    )


RestAnswer = Callable[["RestService", HttpCall, AnyRequest], Awaitable[None]]


class RestErrorFormat:
    @property
    def limit_headers(self) -> LimitHeaders:
        return rate_limit_headers

    def error_response(self, error: HeadraceError, request_id: str) -> HttpResponse:
        body = as_json(to_status(error)).encode()
        return HttpResponse(error.code.http_status, body, error_headers(error))

    def error_event(self, error: HeadraceError, usage: Usage | None, request_id: str) -> str:
        return f"data: {as_json(finish(usage, error))}\n\n"


REST_ERRORS = RestErrorFormat()


class RestResponseFormat:
    eager = True

    def __init__(self, request: RequestDescription, places: Sequence[Offset]) -> None:
        self._request = request
        self._ids = EventIds(request.request_id, places)

    def opening(self) -> str:
        # Also where a client resumes: it names the request.
        lines = [self._ids.opened(choice) for choice in range(self._request.n)]
        return f"{lines[-1]}data: {as_json(started(self._request))}\n\n"

    def events(self, deltas: Iterable[ChoiceDelta]) -> str:
        return "".join(
            self._event(choice_delta) for choice_delta in deltas if not choice_delta.replayed
        )

    def _event(self, choice_delta: ChoiceDelta) -> str:
        ended = choice_delta.finish_reason != UNFINISHED
        line = self._ids.after_tokens(choice_delta.choice, choice_delta.end_index, ended=ended)
        return f"{line}data: {delta_json(choice_delta)}\n\n"

    def queued(self, queued: Queued) -> str:
        message = queued_message(queued)
        event = f"data: {as_json(message)}\n\n" if message is not None else ""
        return self.keep_alive(queued) + event

    def keep_alive(self, queued: Queued | None) -> str:
        return comment(queued, ids=True)

    def ending(self, usage: Usage) -> str:
        return f"data: {as_json(finish(usage))}\n\n"

    def response_body(self, outcome: RequestOutcome) -> bytes:
        return as_json(generate_response(self._request, outcome)).encode()


def delta_json(choice_delta: ChoiceDelta) -> str:
    """Return `as_json(delta(choice_delta))`, at a tenth of its cost: one is made per step."""
    if (
        choice_delta.calls
        or choice_delta.logprobs is not None
        or choice_delta.prompt_logprobs is not None
    ):
        return as_json(delta(choice_delta))
    ended = choice_delta.finish_reason != UNFINISHED
    reason = f',"finish_reason":"{FinishReason.Name(choice_delta.finish_reason)}"' if ended else ""
    ids = ",".join(map(str, choice_delta.token_ids))
    return (
        f'{{"delta":{{"choice":{choice_delta.choice},"text":{json.dumps(choice_delta.text)},'
        f'"token_ids":[{ids}],"first_index":{choice_delta.first_index}{reason}}}}}'
    )


async def _reject(error: HeadraceError, request: Any, context: Context) -> None:
    await send_rejection(context, "native", REST_ERRORS, error)


def rest(kind: type[AnyRequest]) -> Callable[[RestAnswer[AnyRequest]], Any]:
    """Make the gRPC handler of a path that names a model and has a body of this kind."""

    def decorate(answer: RestAnswer[AnyRequest]) -> Any:
        async def handler(self: RestService, request: RestModelRequest, context: Context) -> None:
            async with http_call(self.services, context, "native", REST_ERRORS) as http:
                http.counter.model = self.services.submitter.known(request.model)
                await answer(self, http, _parse(kind, request, self.services.settings))

        return rejected_by(_reject, handler)

    return decorate


class RestService(ApiServicer, RestServiceServicer):
    @rest(GenerateRequest)
    async def StreamGenerate(self, http: HttpCall, body: GenerateRequest) -> None:
        await _generate(http, body, stream=True)

    @rest(GenerateRequest)
    async def Generate(self, http: HttpCall, body: GenerateRequest) -> None:
        await _generate(http, body, stream=False)

    @rest(TokenizeRequest)
    async def Tokenize(self, http: HttpCall, body: TokenizeRequest) -> None:
        await _send(http.reply, await tokenize(self.services, body, http.call))

    @rest(EmbedRequest)
    async def Embed(self, http: HttpCall, body: EmbedRequest) -> None:
        async with embedded_inputs(self.services, body, http.call) as embedded:
            await send_embeddings(embedded, http.reply)

    @rest(RerankRequest)
    async def Rerank(self, http: HttpCall, body: RerankRequest) -> None:
        await _send(http.reply, await rerank(self.services, body, http.call))

    async def AttachRequest(self, request: RestAttachRequest, context: Context) -> None:  # type: ignore[override]
        services = self.services
        async with http_call(services, context, "native", REST_ERRORS) as http:
            key = key_of_request(request.request_id, http.call)
            after = resume_position(request.request_id, request.after, http.call)
            answer = await services.opener.resume(key, after)
            http.counter.model = services.submitter.known(answer.request.model)
            await _deliver(answer, http, stream=True)

    rejected_by(_reject, AttachRequest)


async def _generate(http: HttpCall, body: GenerateRequest, *, stream: bool) -> None:
    services, call = http.services, http.call
    request = generate_request(body, call, stream=stream)
    if request.background and not stream:
        begun = await services.opener.begin(request, call)
        await http.reply.accept(as_json(begun).encode(), begun.request_id)
        return
    answer, _ = await services.opener.open_or_resume(request, call)
    await _deliver(answer, http, stream=stream)


async def _deliver(answer: Answer, http: HttpCall, *, stream: bool) -> None:
    response_format = RestResponseFormat(answer.request, answer.offsets)
    await deliver(answer, http, response_format, stream=stream)


async def _send(reply: Reply, response: Message) -> None:
    await reply.send(as_json(response).encode())


def _parse(
    kind: type[AnyRequest], request: RestModelRequest, settings: GatewaySettings
) -> AnyRequest:
    body = parse(kind, request.body.data, max_bytes=settings.max_body_bytes)
    if body.model and body.model != request.model:
        raise InvalidRequest(
            f"the body has model {quoted(body.model)}, the path {quoted(request.model)}",
            field="model",
        )
    body.model = request.model
    return body

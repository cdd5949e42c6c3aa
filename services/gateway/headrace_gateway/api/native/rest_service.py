"""RestService: the native calls that have a body, as JSON through Envoy."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from headrace.errors import HeadraceError, InvalidRequest
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import FinishReason, RequestOutcome, Usage
from headrace.v1.embeddings_pb2 import EmbedRequest, RerankRequest
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.models_pb2 import TokenizeRequest, TokenizeResponse
from headrace.v1.rest_pb2 import RestAttachRequest, RestModelRequest
from headrace.v1.rest_pb2_grpc import RestServiceServicer
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.errors import retry_headers
from headrace_gateway.api.http.reply import HttpResponse, Reply, comment, deliver, handle_errors
from headrace_gateway.api.native.convert import generate_request, tokenize_request, with_request_id
from headrace_gateway.api.native.messages import (
    delta,
    finish,
    generate_response,
    queued_message,
    started,
)
from headrace_gateway.api.native.proto_json import parse
from headrace_gateway.api.native.request_ids import validate_request_id
from headrace_gateway.api.native.vector_messages import (
    embed_json,
    optional,
    rerank_query,
    rerank_response,
    vector_request,
)
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.base.cooperative import joined_chunks
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta
from headrace_gateway.output.position import EventIds, Offset
from headrace_gateway.output.resumer import AnswerResumer
from headrace_gateway.request.generation import Queued, RequestDescription
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.background_calls import BackgroundRequests
from headrace_gateway.resume.open_or_resume import open_or_resume, resume_position
from headrace_gateway.submit.embedding import Embedding
from headrace_gateway.submit.submitter import Submitter

Named = TypeVar("Named", GenerateRequest, TokenizeRequest, EmbedRequest, RerankRequest)


def as_json(message: Message) -> str:
    """As Envoy prints the calls it transcodes itself: snake_case, zeros included."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=None,
    )


class RestErrorFormat:
    def error_response(self, error: HeadraceError) -> HttpResponse:
        body = as_json(to_status(error)).encode()
        return HttpResponse(error.code.http_status, body, retry_headers(error))

    def error_event(self, error: HeadraceError, usage: Usage | None) -> str:
        return f"data: {as_json(finish(usage, error))}\n\n"


class RestResponseFormat:
    eager = True

    def __init__(self, request: RequestDescription, places: Sequence[Offset]) -> None:
        self._request = request
        self._ids = EventIds(request.request_id, places)

    def opening(self) -> str:
        # Also for who comes back: it says what request this is.
        lines = [self._ids.opened(choice) for choice in range(self._request.n)]
        return f"{lines[-1]}data: {as_json(started(self._request))}\n\n"

    def events(self, news: Iterable[ChoiceDelta]) -> str:
        return "".join(self._event(said) for said in news if not said.replayed)

    def _event(self, said: ChoiceDelta) -> str:
        ended = said.finish_reason != UNFINISHED
        line = self._ids.after_tokens(said.choice, said.end_index, ended=ended)
        return f"{line}data: {delta_json(said)}\n\n"

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


def delta_json(said: ChoiceDelta) -> str:
    """What `as_json(delta(said))` says, at a tenth of its cost: this one is made per step."""
    if said.calls or said.logprobs is not None or said.prompt_logprobs is not None:
        return as_json(delta(said))
    ended = said.finish_reason != UNFINISHED
    reason = f',"finish_reason":"{FinishReason.Name(said.finish_reason)}"' if ended else ""
    ids = ",".join(map(str, said.token_ids))
    return (
        f'{{"delta":{{"choice":{said.choice},"text":{json.dumps(said.text)},'
        f'"token_ids":[{ids}],"first_index":{said.first_index}{reason}}}}}'
    )


class RestService(RestServiceServicer):
    def __init__(
        self,
        submitter: Submitter,
        embedding: Embedding,
        limits: GatewaySettings,
        resumer: AnswerResumer,
        background: BackgroundRequests,
    ) -> None:
        self._submitter, self._embedding, self._resumer = submitter, embedding, resumer
        self._limits, self._background = limits, background

    async def StreamGenerate(self, request: RestModelRequest, context: Context) -> None:  # type: ignore[override]
        await self._generate(request, context, stream=True)

    async def Generate(self, request: RestModelRequest, context: Context) -> None:  # type: ignore[override]
        await self._generate(request, context, stream=False)

    async def Tokenize(self, request: RestModelRequest, context: Context) -> None:  # type: ignore[override]
        call = call_of(context)
        with CallCounter("native", self._submitter.known(request.model)) as counter:
            reply = Reply(context, RestErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                body = self._parse(TokenizeRequest, request)
                token_ids, tokens = await self._submitter.tokenize(tokenize_request(body, call))
                response = TokenizeResponse(token_ids=token_ids, tokens=tokens)
                await reply.send(as_json(response).encode())

    async def Embed(self, request: RestModelRequest, context: Context) -> None:  # type: ignore[override]
        call = call_of(context)
        with CallCounter("native", self._submitter.known(request.model)) as counter:
            reply = Reply(context, RestErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                body = self._parse(EmbedRequest, request)
                prompt_name = body.prompt_name if body.HasField("prompt_name") else None
                async with self._embedding.embedded(
                    vector_request(body, call),
                    dimensions=optional(body, "dimensions"),
                    prompt_name=prompt_name,
                ) as embedded:
                    await reply.send_pieces(joined_chunks(embed_json(embedded, call.request_id)))

    async def Rerank(self, request: RestModelRequest, context: Context) -> None:  # type: ignore[override]
        call = call_of(context)
        with CallCounter("native", self._submitter.known(request.model)) as counter:
            reply = Reply(context, RestErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                body = self._parse(RerankRequest, request)
                top_n = optional(body, "top_n")
                check_top_n(top_n)
                async with self._embedding.ranked(rerank_query(body, call)) as ranked:
                    response = rerank_response(ranked, call.request_id, top_n)
                    await reply.send(as_json(response).encode())

    async def AttachRequest(self, request: RestAttachRequest, context: Context) -> None:  # type: ignore[override]
        call = call_of(context)
        with CallCounter("native") as counter:
            reply = Reply(context, RestErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                request_id = validate_request_id(request.request_id)
                after = resume_position(request_id, request.after, call)
                answer = await self._resumer.resume(request_id, after)
                counter.model = self._submitter.known(answer.request.model)
                await self._deliver(answer, reply, stream=True)

    async def _generate(self, request: RestModelRequest, context: Context, *, stream: bool) -> None:
        call = call_of(context)
        with CallCounter("native", self._submitter.known(request.model)) as counter:
            reply = Reply(context, RestErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                body = self._parse(GenerateRequest, request)
                wanted = generate_request(body, with_request_id(body, call), streams=stream)
                if wanted.background and not stream:
                    await self._begin(wanted, call, reply, repeatable=bool(body.request_id))
                    return
                answer, _ = await open_or_resume(wanted, call, self._submitter, self._resumer)
                await self._deliver(answer, reply, stream=stream)

    async def _begin(
        self, wanted: GenerationRequest, call: Call, reply: Reply, *, repeatable: bool
    ) -> None:
        begun = await self._background.begin(wanted, call, repeatable=repeatable)
        await reply.accept(as_json(begun).encode(), begun.request_id)

    async def _deliver(self, answer: Answer, reply: Reply, *, stream: bool) -> None:
        reply.request_id = answer.request.request_id
        response_format = RestResponseFormat(answer.request, answer.offsets)
        await deliver(answer, reply, response_format, alive=self._limits.alive if stream else None)

    def _parse(self, kind: type[Named], request: RestModelRequest) -> Named:
        body = parse(kind, request.body.data, max_bytes=self._limits.max_body_bytes)
        if body.model and body.model != request.model:
            raise InvalidRequest(
                f"the body says model {quoted(body.model)}, the path {quoted(request.model)}",
                field="model",
            )
        body.model = request.model
        return body

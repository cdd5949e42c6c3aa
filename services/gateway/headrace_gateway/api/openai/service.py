"""OpenAI's paths, as Envoy's transcoder hands them over."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace.v1.models_pb2 import GetModelRequest
from headrace.v1.openai_pb2_grpc import OpenAIServiceServicer
from headrace_gateway.api.bodies.convert import (
    chat_output_options,
    chat_request,
    completion_output_options,
    completion_requests,
)
from headrace_gateway.api.bodies.generation import Body, ChatBody, CompletionBody
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.bodies.reading import read_body
from headrace_gateway.api.compat import cohere, scoring, tei, tokenizing
from headrace_gateway.api.compat.endpoint import ApiServices
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.errors import OpenAIErrorFormat
from headrace_gateway.api.http.reply import Reply, comment, deliver, handle_errors
from headrace_gateway.api.openai.chunks import (
    CHAT,
    COMPLETION,
    ChunkFormatter,
    ResponseFields,
    ResponseShape,
    UsageOptions,
    accepted_body,
    response_body,
)
from headrace_gateway.api.openai.embeddings import VectorHandlers
from headrace_gateway.api.openai.logprobs_formatter import LogprobsFormatter, Prompt
from headrace_gateway.api.openai.multi_prompt import MultiPromptHandler
from headrace_gateway.api.openai.multi_prompt_run import MultiPromptRequest
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.models.catalog import Catalog, ServedModel
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.output.resumer import AnswerResumer
from headrace_gateway.request.generation import Queued
from headrace_gateway.request.generation_request import (
    Conversation,
    GenerationRequest,
    Text,
    last_answer,
)
from headrace_gateway.resume.background_calls import BackgroundRequests
from headrace_gateway.resume.open_or_resume import open_or_resume, wants_event_ids
from headrace_gateway.resume.ports import Fleet, serving
from headrace_gateway.submit.submitter import Submitter

AnyBody = TypeVar("AnyBody", bound=Body)


@dataclass(frozen=True, slots=True)
class OpenAIResponseFormat:
    shape: ResponseShape
    head: ResponseFields
    chunks: ChunkFormatter
    formatter: LogprobsFormatter | None
    ids: bool
    """Events have ids. Its reader then reads all of server-sent events, comments too."""
    eager: bool = False

    def opening(self) -> str:
        return self.chunks.opening()

    def events(self, news: Iterable[ChoiceDelta]) -> str:
        return self.chunks.events(news)

    def queued(self, queued: Queued) -> str:
        # Why not to all: benchmarks read each line as data, and their requests wait by the hundred.
        return self.keep_alive(queued) if self.ids else ""

    def keep_alive(self, queued: Queued | None) -> str:
        return comment(queued, ids=self.ids)

    def ending(self, usage: Usage) -> str:
        return self.chunks.ending(usage)

    def response_body(self, outcome: RequestOutcome) -> bytes:
        return response_body(self.shape, self.head, outcome, self.formatter)


@dataclass(frozen=True, slots=True)
class _Endpoint(Generic[AnyBody]):
    shape: ResponseShape
    kind: type[AnyBody]
    wanted: Callable[[AnyBody, Call], list[GenerationRequest]]
    """Of each of its prompts."""
    options: Callable[[AnyBody], OutputOptions]


def _wanted_chats(body: ChatBody, call: Call) -> list[GenerationRequest]:
    return [chat_request(body, call)]


_CHAT = _Endpoint(CHAT, ChatBody, _wanted_chats, chat_output_options)
_COMPLETION = _Endpoint(COMPLETION, CompletionBody, completion_requests, completion_output_options)


class OpenAIService(OpenAIServiceServicer):
    """Handlers write to their context, and are no generators: a generator that is waiting
    at a `yield` when its caller leaves is not told so, but only forgotten some time later."""

    def __init__(
        self,
        submitter: Submitter,
        catalog: Catalog,
        fleet: Fleet,
        vectors: VectorHandlers,
        serving: ApiServices,
        *,
        resumer: AnswerResumer,
        background: BackgroundRequests,
        limits: GatewaySettings,
    ) -> None:
        self._submitter, self._resumer = submitter, resumer
        self._background = background
        self._catalog = catalog
        self._fleet = fleet
        self._vectors, self._serving = vectors, serving
        self._limits = limits
        self._prompts = MultiPromptHandler(submitter, resumer, limits)

    async def ChatCompletions(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await self._complete(request.data, context, _CHAT)

    async def Completions(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await self._complete(request.data, context, _COMPLETION)

    async def Embeddings(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await self._vectors.embeddings(request.data, context)

    async def Rerank(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        if tei.is_of_texts(request.data):
            await tei.rerank(self._serving, request.data, context)
        else:
            await self._vectors.rerank(request.data, context)

    async def RerankV2(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await cohere.rerank(self._serving, request.data, context)

    async def Score(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await scoring.score(self._serving, request.data, context)

    async def Embed(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await tei.embed(self._serving, request.data, context)

    async def Tokenize(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await tokenizing.tokenize(self._serving, request.data, context)

    async def Detokenize(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        await tokenizing.detokenize(self._serving, request.data, context)

    async def ListModels(self, request: Empty, context: Context) -> None:  # type: ignore[override]
        workers = serving(self._fleet)
        entries = [entry for s in self._catalog.all() for entry in self._entries(s, workers)]
        # A client that picks the first should get an answer soon.
        entries.sort(key=lambda entry: not entry["ready"])
        await self._look_up(context, lambda: {"object": "list", "data": entries})

    def _entries(self, served: ServedModel, workers: Counter[str]) -> Iterator[dict[str, Any]]:
        """One for each name that a client may send."""
        ready = workers[served.card.model] > 0
        for name in (served.name, *self._catalog.aliases(served)):
            yield _model(served, name, ready=ready)
        for adapter in self._catalog.adapters(served):
            if adapter.digest:
                adapted = replace(served, adapter=adapter)
                yield _model(adapted, adapted.name, ready=adapter.workers > 0)

    async def GetModel(self, request: GetModelRequest, context: Context) -> None:  # type: ignore[override]
        await self._look_up(context, lambda: self._entry(request.model))

    def _entry(self, name: str) -> dict[str, Any]:
        served = self._catalog.get(name)
        if served.adapter is not None:
            return _model(served, served.name, ready=served.adapter.workers > 0)
        return _model(served, name, ready=serving(self._fleet)[served.card.model] > 0)

    async def _look_up(self, context: Context, find: Callable[[], dict[str, Any]]) -> None:
        with CallCounter("openai") as counter:
            reply = Reply(context, OpenAIErrorFormat(), call_of(context).request_id, counter)
            async with handle_errors(reply):
                await reply.send(json.dumps(find()).encode())

    async def _complete(self, data: bytes, context: Context, endpoint: _Endpoint[AnyBody]) -> None:
        call = call_of(context)
        with CallCounter("openai") as counter:
            reply = Reply(context, OpenAIErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                body = read_body(endpoint.kind, data, call, self._limits, reply)
                counter.model = self._submitter.known(body.model)
                ids = wants_event_ids(call)
                wanted, *others = endpoint.wanted(body, call)
                if others:
                    options, counted = endpoint.options(body), _counted(body)
                    several = MultiPromptRequest([wanted, *others], options, counted, _formatter)
                    await self._prompts.answer(several, call, reply)
                    return
                if wanted.background and not wanted.stream:
                    named = wanted.request_id != call.request_id
                    begun = await self._background.begin(wanted, call, repeatable=named)
                    await reply.accept(accepted_body(endpoint.shape, begun), begun.request_id)
                    return
                answer, request = await open_or_resume(wanted, call, self._submitter, self._resumer)
                reply.request_id = answer.request.request_id
                formatter = _formatter(endpoint.options(body), wanted, answer, request.prompt_ids)
                response_format = _response_format(endpoint.shape, body, answer, formatter, ids=ids)
                alive = self._limits.alive if wanted.stream else None
                await deliver(answer, reply, response_format, alive=alive)


def _response_format(
    shape: ResponseShape,
    body: Body,
    answer: Answer,
    formatter: LogprobsFormatter | None,
    *,
    ids: bool,
) -> OpenAIResponseFormat:
    request = answer.request
    head = ResponseFields(
        request.request_id,
        request.model,
        # Why: who comes back for the rest finds it the same in every chunk.
        created=int(answer.arrival_s),
        fingerprint=f"fp_{request.weights}",
    )
    counted = _counted(body)
    chunks = ChunkFormatter(
        shape,
        head,
        places=answer.offsets,
        include_usage=counted.include_usage,
        prompt_tokens=request.prompt_tokens if counted.continuous_usage else None,
        ids=ids,
        formatter=formatter,
    )
    return OpenAIResponseFormat(shape, head, chunks, formatter, ids)


def _counted(body: Body) -> UsageOptions:
    options = body.stream_options
    if options is None:
        return UsageOptions()
    return UsageOptions(bool(options.include_usage), bool(options.continuous_usage_stats))


def _formatter(
    options: OutputOptions, wanted: GenerationRequest, answer: Answer, prompt_ids: Sequence[int]
) -> LogprobsFormatter | None:
    if not options.any_requested:
        return None
    text, given = "", wanted.prompt
    if options.echo:
        text = answer.tokenizer.decode(list(prompt_ids))
        if isinstance(given, Text) and wanted.truncate_tokens is None:
            text = given.text
    if options.echo_last_message and isinstance(given, Conversation):
        text = last_answer(given)
    prompt = Prompt(text, prompt_ids)
    return LogprobsFormatter(options, answer.tokenizer.spelling, prompt, choices=answer.request.n)


def _model(served: ServedModel, name: str, *, ready: bool) -> dict[str, Any]:
    card = served.card
    model = {
        "id": name,
        "object": "model",
        "created": card.create_time.seconds,
        "owned_by": "headrace",
        # vLLM's fields, which some clients read; `parent`, of adapters, as well.
        "max_model_len": card.context_tokens,
        "root": card.model,
        # Ours: whether a worker serves it now. Else its requests wait.
        "ready": ready,
    }
    return model if served.adapter is None else model | {"parent": card.model}

"""/v1/chat/completions and /v1/completions: from a body to the answer to its prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace_gateway.api.bodies.convert import (
    chat_output_options,
    chat_request,
    completion_output_options,
    completion_requests,
)
from headrace_gateway.api.bodies.generation import Body, ChatBody, CompletionBody
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.http.deliver import comment, deliver
from headrace_gateway.api.http.endpoint import HttpCall, endpoint
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
from headrace_gateway.api.openai.logprobs_formatter import LogprobsFormatter, Prompt
from headrace_gateway.api.openai.multi_prompt import MultiPromptHandler
from headrace_gateway.api.openai.multi_prompt_run import MultiPromptRequest
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.request.generation import Queued
from headrace_gateway.request.generation_request import (
    Conversation,
    GenerationRequest,
    Text,
    last_answer,
)
from headrace_gateway.resume.open_or_resume import wants_event_ids


@endpoint(ChatBody)
async def chat(http: HttpCall, body: ChatBody) -> None:
    request = chat_request(body, http.call)
    await _generate(http, body, CHAT, request, chat_output_options(body))


@endpoint(CompletionBody)
async def completions(http: HttpCall, body: CompletionBody) -> None:
    request, *others = completion_requests(body, http.call)
    options = completion_output_options(body)
    if not others:
        await _generate(http, body, COMPLETION, request, options)
        return
    wants_event_ids(http.call)  # a malformed header is refused as it is for one prompt
    several = MultiPromptRequest([request, *others], options, _usage_options(body), _formatter)
    services = http.services
    handler = MultiPromptHandler(services.submitter, services.opener, services.settings)
    await handler.answer(several, http.call, http.reply)


async def _generate(
    http: HttpCall,
    body: Body,
    shape: ResponseShape,
    request: GenerationRequest,
    options: OutputOptions,
) -> None:
    services, call, reply = http.services, http.call, http.reply
    ids = wants_event_ids(call)
    if request.background and not request.stream:
        begun = await services.opener.begin(request, call)
        await reply.accept(accepted_body(shape, begun), begun.request_id)
        return
    answer, valid = await services.opener.open_or_resume(request, call)
    reply.request_id = answer.request.request_id
    formatter = _formatter(options, request, answer, valid.prompt_ids)
    response_format = _response_format(shape, body, answer, formatter, ids=ids)
    alive = services.settings if request.stream else None
    await deliver(answer, reply, response_format, alive=alive)


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
    counted = _usage_options(body)
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


def _usage_options(body: Body) -> UsageOptions:
    options = body.stream_options
    if options is None:
        return UsageOptions()
    return UsageOptions(bool(options.include_usage), bool(options.continuous_usage_stats))


def _formatter(
    options: OutputOptions, requested: GenerationRequest, answer: Answer, prompt_ids: Sequence[int]
) -> LogprobsFormatter | None:
    if not options.any_requested:
        return None
    text, given = "", requested.prompt
    if options.echo:
        text = answer.tokenizer.decode(list(prompt_ids))
        if isinstance(given, Text) and requested.truncate_tokens is None:
            text = given.text
    if options.echo_last_message and isinstance(given, Conversation):
        text = last_answer(given)
    prompt = Prompt(text, prompt_ids)
    return LogprobsFormatter(options, answer.tokenizer.spelling, prompt, choices=answer.request.n)

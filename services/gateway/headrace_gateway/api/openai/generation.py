"""/v1/chat/completions and /v1/completions: from a body to the answer to its prompts."""

from __future__ import annotations

from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.convert import chat_request, completion_requests
from headrace_gateway.api.bodies.generation import Body, ChatBody, CompletionBody
from headrace_gateway.api.http.deliver import deliver
from headrace_gateway.api.http.endpoint import HttpCall, endpoint
from headrace_gateway.api.openai.chunks import (
    CHAT,
    COMPLETION,
    ChunkFormatter,
    ResponseFields,
    ResponseShape,
    accepted_body,
)
from headrace_gateway.api.openai.logprobs_formatter import formatter_for
from headrace_gateway.api.openai.multi_prompt import answer_prompts
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.open_or_resume import wants_event_ids

_GENERATES = (ModelTask.MODEL_TASK_GENERATE,)


@endpoint(ChatBody, tasks=_GENERATES)
async def chat(http: HttpCall, body: ChatBody) -> None:
    await _generate(http, body, CHAT, chat_request(body, http.call))


@endpoint(CompletionBody, tasks=_GENERATES)
async def completions(http: HttpCall, body: CompletionBody) -> None:
    requests = completion_requests(body, http.call)
    if len(requests) == 1:
        await _generate(http, body, COMPLETION, requests[0])
    else:
        await answer_prompts(http, body, requests)


async def _generate(
    http: HttpCall, body: Body, shape: ResponseShape, request: GenerationRequest
) -> None:
    services, call = http.services, http.call
    ids = wants_event_ids(call)
    if request.background and not request.stream and request.row is None:
        begun = await services.opener.begin(request, call)
        await http.reply.accept(accepted_body(shape, begun), begun.request_id)
        return
    answer, valid = await services.opener.open_or_resume(request, call)
    chunks = ChunkFormatter(
        ResponseFields.of(shape, answer),
        places=answer.offsets,
        usage=body.stream_options,
        prompt_tokens=answer.request.prompt_tokens,
        ids=ids,
        formatter=formatter_for(body.output_options, request, answer, valid.prompt_ids),
        reasoning=body.output_options.reasoning,
    )
    await deliver(answer, http, chunks, stream=request.stream)

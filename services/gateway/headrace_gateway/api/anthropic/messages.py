"""/v1/messages and /v1/messages/count_tokens: from a body to its answer."""

from __future__ import annotations

from dataclasses import replace

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.anthropic.bodies import CountTokensBody, MessagesBody
from headrace_gateway.api.anthropic.convert import counted_request, message_request
from headrace_gateway.api.anthropic.events import MessageFields, MessageFormatter
from headrace_gateway.api.http.deliver import deliver
from headrace_gateway.api.http.endpoint import HttpCall, endpoint
from headrace_gateway.api.http.errors import ANTHROPIC_ERRORS
from headrace_gateway.checks.apply_reasoning import keeps_budget
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.request.tasks import require_task
from headrace_gateway.resume.open_or_resume import HEADER as LAST_EVENT_ID


@endpoint(MessagesBody, errors=ANTHROPIC_ERRORS)
async def create(http: HttpCall, body: MessagesBody) -> None:
    if http.call.last_event_id:
        raise InvalidRequest(
            f"{LAST_EVENT_ID}: streams of messages are not resumed; their events have no ids",
            field=LAST_EVENT_ID,
        )
    request = _with_budget(http, body, message_request(body, http.call))
    answer, valid = await http.services.opener.open_or_resume(request, http.call)
    fields = MessageFields(
        answer.request.request_id,
        answer.request.model,
        answer.request.prompt_tokens,
        fills_context=valid.sampling.max_tokens < body.max_tokens,
        hides_thinking=body.thinking is not None and body.thinking.display == "omitted",
    )
    await deliver(answer, http, MessageFormatter(fields), stream=request.stream)


@endpoint(CountTokensBody, errors=ANTHROPIC_ERRORS)
async def count_tokens(http: HttpCall, body: CountTokensBody) -> None:
    served = http.services.catalog.get(body.model, http.call.caller)
    require_task(served.card, ModelTask.MODEL_TASK_GENERATE)
    _, token_ids = await http.services.submitter.encoded(counted_request(body, http.call))
    await http.reply.send_json({"input_tokens": len(token_ids)})


def _with_budget(
    http: HttpCall, body: MessagesBody, request: GenerationRequest
) -> GenerationRequest:
    """Return the request with its budget of thinking, where the model can keep one.

    Why not refused elsewhere: clients must send one, and it is a target to them.
    """
    budget = body.thinking and body.thinking.budget_tokens
    if not budget or not keeps_budget(http.services.catalog.get(body.model, http.call.caller).card):
        return request
    names = {**request.names, "reasoning_budget": "thinking.budget_tokens"}
    reasoning = replace(request.reasoning, budget=budget)
    return replace(request, reasoning=reasoning, names=names)

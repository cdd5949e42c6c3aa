"""AttachService: sends the output of a request that is open here to other gateways."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from headrace.errors import RequestNotFound
from headrace.internal.v1.attach_pb2 import (
    AttachedEnding,
    AttachedQueue,
    AttachedTokens,
    AttachRequest,
    AttachResponse,
)
from headrace.internal.v1.attach_pb2_grpc import AttachServiceServicer
from headrace.rpc.status import abort, to_status
from headrace_gateway.base.calls import Context
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta
from headrace_gateway.request.generation import Queued
from headrace_gateway.request.logprob_columns import written
from headrace_gateway.resume.background import AnswerBuilder
from headrace_gateway.stream.open_requests import OpenRequests


class AttachService(AttachServiceServicer):
    def __init__(self, requests: OpenRequests, build_answer: AnswerBuilder) -> None:
        self._requests, self._build_answer = requests, build_answer

    async def Attach(self, request: AttachRequest, context: Context) -> None:  # type: ignore[override]
        open_request = self._requests.find(request.request_id)
        if open_request is None:
            fact = f"request {request.request_id} is not open at this gateway"
            await abort(context, RequestNotFound(fact, field="request_id"))
        record = open_request.record
        if not record.HasField("rendering"):
            # Vectors are sent once, to the call that requested them. The other gateway knows by the
            # record, which has no rendering, that there is nothing to read.
            await context.write(AttachResponse(record=record))
            return
        # Its text is produced here too, so that its end is found and settled if this is the last
        # reader.
        async with self._build_answer(open_request.reader()) as answer:
            await context.write(AttachResponse(record=record))
            try:
                await _send(answer, context)
            except GenerationFailed as failed:
                await context.write(AttachResponse(error=to_status(failed.error)))
            await answer.settle()


async def _send(answer: Answer, context: Context) -> None:
    async for news in answer:
        if answer.queued is not None:
            await context.write(AttachResponse(queue=_queue(answer.queued)))
            continue
        endings = [
            AttachedEnding(choice=delta.choice, finish_reason=delta.finish_reason)
            for delta in news
            if delta.finish_reason != UNFINISHED
        ]
        tokens = [_tokens(delta) for delta in news if delta.token_ids]
        await context.write(AttachResponse(tokens=tokens, endings=endings))
        if answer.complete:
            return


def _queue(queued: Queued) -> AttachedQueue:
    message = AttachedQueue(ahead=queued.ahead, waits_for_quota=queued.waits_for_quota)
    if queued.wait_s is not None:
        message.wait.FromNanoseconds(round(queued.wait_s * 1e9))
    return message


def _tokens(delta: ChoiceDelta) -> AttachedTokens:
    return AttachedTokens(
        choice=delta.choice,
        first_index=delta.first_index,
        token_ids=delta.token_ids,
        logprobs=written(delta.logprobs),
        prompt_logprobs=written(delta.prompt_logprobs),
        cached_prompt_tokens=delta.cached_prompt,
    )

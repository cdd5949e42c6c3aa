"""Pure room: deltas and answers as headrace.v1's messages."""

from __future__ import annotations

from headrace.errors import HeadraceError
from headrace.rpc.status import to_status
from headrace.v1 import generation_pb2
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace.v1.generation_pb2 import (
    Delta,
    Finish,
    GenerateResponse,
    Started,
    StreamGenerateResponse,
    ToolCallDelta,
)
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.request.generation import Queued, RequestDescription
from headrace_gateway.request.logprob_columns import written

MAX_DETAIL_BYTES = 4096
"""Of an answer in the status of a call. Clients refuse a status of more than 8 KiB, in base64."""


def started(request: RequestDescription) -> StreamGenerateResponse:
    return StreamGenerateResponse(
        started=Started(
            request_id=request.request_id,
            model=request.model,
            seed=request.seed,
            prompt_tokens=request.prompt_tokens,
        )
    )


def delta(choice_delta: ChoiceDelta) -> StreamGenerateResponse:
    return StreamGenerateResponse(
        delta=Delta(
            choice=choice_delta.choice,
            text=choice_delta.text,
            reasoning=choice_delta.reasoning,
            token_ids=choice_delta.token_ids,
            first_index=choice_delta.first_index,
            finish_reason=choice_delta.finish_reason,
            logprobs=written(choice_delta.logprobs),
            prompt_logprobs=written(choice_delta.prompt_logprobs),
            tool_calls=[
                ToolCallDelta(
                    index=piece.index,
                    call_id=piece.call_id,
                    name=piece.name or "",
                    arguments=piece.arguments,
                )
                for piece in choice_delta.calls
            ],
        )
    )


def queued_message(queued: Queued) -> StreamGenerateResponse | None:
    """Return None if the queue position is unknown."""
    if queued.waits_for_quota:
        reason = generation_pb2.QUEUED_REASON_QUOTA
        return StreamGenerateResponse(queued=generation_pb2.Queued(reason=reason))
    if queued.ahead is None:
        return None
    message = StreamGenerateResponse(queued=generation_pb2.Queued(position=queued.ahead))
    if queued.wait_s is not None:
        message.queued.estimated_wait.FromMilliseconds(round(queued.wait_s * 1000))
    return message


def finish(usage: Usage | None, error: HeadraceError | None = None) -> StreamGenerateResponse:
    status = to_status(error) if error is not None else None
    return StreamGenerateResponse(finish=Finish(usage=usage, error=status))


def generate_response(request: RequestDescription, outcome: RequestOutcome) -> GenerateResponse:
    return GenerateResponse(
        request_id=request.request_id,
        model=request.model,
        seed=request.seed,
        choices=outcome.choices,
        usage=outcome.usage,
    )


def as_detail(response: GenerateResponse) -> GenerateResponse:
    """Return as much of an answer as a status can have: without token ids and log probabilities if
    it is too large with them, and without choices if it still is."""
    if response.ByteSize() <= MAX_DETAIL_BYTES:
        return response
    smaller = GenerateResponse()
    smaller.CopyFrom(response)
    for choice in smaller.choices:
        for field in ("token_ids", "logprobs", "prompt_logprobs"):
            choice.ClearField(field)
    if smaller.ByteSize() > MAX_DETAIL_BYTES:
        smaller.ClearField("choices")
    return smaller

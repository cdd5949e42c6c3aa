"""GenerationService: text from prompts, typed."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import logging

from headrace.errors import HeadraceError, InsufficientQuota, InternalError, InvalidRequest
from headrace.v1.generation_pb2 import GenerateRequest, GenerateResponse
from headrace.v1.generation_pb2_grpc import GenerationServiceServicer
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.services import ApiServicer
from headrace_gateway.api.native.convert import generate_request
from headrace_gateway.api.native.grpc_errors import (
    INTERNAL_ERROR,
    EndedEarly,
    abort_on_error,
    counted,
)
from headrace_gateway.api.native.messages import (
    as_detail,
    delta,
    finish,
    generate_response,
    queued_message,
    started,
)
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.output.answering import Answer, GenerationFailed

log = logging.getLogger(__name__)


class GenerationService(ApiServicer, GenerationServiceServicer):
    """StreamGenerate writes to its context, for the reason that `http.endpoint.post` gives."""

    async def StreamGenerate(self, request: GenerateRequest, context: Context) -> None:  # type: ignore[override]
        with CallCounter("native", self.services.submitter.known(request.model)) as counter:
            opening = self._open(request, call_of(context), stream=True)
            answer = await abort_on_error(context, opening, counter)
            await write_answer(answer, context, counter)

    @counted
    async def Generate(self, request: GenerateRequest, call: Call) -> GenerateResponse:
        if request.detached:
            raise InvalidRequest(
                "a detached request is not waited for: use RequestService.CreateRequest, or"
                " StreamGenerate to read it as it is made",
                field="detached",
            )
        async with await self._open(request, call, stream=False) as answer:
            try:
                async for _ in answer:
                    pass
            except GenerationFailed as failed:
                await answer.settle()
                if isinstance(failed.error, InsufficientQuota):  # What was made is billed.
                    response = generate_response(answer.request, answer.outcome())
                    raise EndedEarly(failed.error, as_detail(response)) from failed
                raise failed.error from failed
            await answer.settle()
            return generate_response(answer.request, answer.outcome())

    async def _open(self, request: GenerateRequest, call: Call, *, stream: bool) -> Answer:
        requested = generate_request(request, call, stream=stream)
        answer, _ = await self.services.opener.open(requested, call)
        return answer


async def write_answer(answer: Answer, context: Context, counter: CallCounter) -> None:
    """Write an answer to its end; if this is cancelled, the answer is abandoned."""
    async with answer:
        await context.write(started(answer.request))
        error = await _stream(answer, context)
        if error is None or error is answer.error:
            await answer.settle()
        await context.write(finish(answer.usage(), error))
        counter.finish(error)


async def _stream(answer: Answer, context: Context) -> HeadraceError | None:
    """Write all deltas; return the error that ended them, if any."""
    try:
        async for deltas in answer:
            if answer.queued is not None and (message := queued_message(answer.queued)) is not None:
                await context.write(message)
            for choice_delta in deltas:
                if not choice_delta.replayed:
                    await context.write(delta(choice_delta))
            if answer.complete:
                break
    except GenerationFailed as failed:
        return failed.error
    except HeadraceError as error:
        return error
    except Exception:
        log.exception("call.broken", extra={"request_id": answer.request.request_id})
        return InternalError(INTERNAL_ERROR)
    return None

"""GenerationService: text from prompts, typed."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import logging

from headrace.errors import InternalError
from headrace.v1.generation_pb2 import GenerateRequest, GenerateResponse
from headrace.v1.generation_pb2_grpc import GenerationServiceServicer
from headrace_gateway.answering import Answer, GenerationFailed
from headrace_gateway.calls import Context, call_of
from headrace_gateway.intake import Intake
from headrace_gateway.native.messages import delta, finish, generated, started
from headrace_gateway.native.statuses import told_by_status
from headrace_gateway.native.wishes import call_for, wanted_generation

log = logging.getLogger(__name__)


class GenerationService(GenerationServiceServicer):
    """StreamGenerate writes to its context, for the reason that `OpenAIService` gives."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def StreamGenerate(self, request: GenerateRequest, context: Context) -> None:  # type: ignore[override]
        answer = await told_by_status(context, self._open(request, context))
        async with answer:
            await context.write(started(answer.request))
            try:
                await _stream(answer, context)
            except GenerationFailed as failed:
                await context.write(finish(answer.usage(), failed.error))
            except Exception:
                log.exception("call.failed")
                error = InternalError("the gateway failed; its log says how")
                await context.write(finish(answer.usage(), error))
                return
            await answer.settle()

    async def Generate(self, request: GenerateRequest, context: Context) -> GenerateResponse:
        return await told_by_status(context, self._generate(request, context))

    async def _generate(self, request: GenerateRequest, context: Context) -> GenerateResponse:
        async with await self._open(request, context) as answer:
            try:
                async for _ in answer:
                    pass
            except GenerationFailed as failed:
                await answer.settle()
                raise failed.error from failed
            await answer.settle()
            return generated(answer.request, answer.outcome())

    async def _open(self, request: GenerateRequest, context: Context) -> Answer:
        call = call_for(request, call_of(context))
        return await self._intake.open(wanted_generation(request, call))


async def _stream(answer: Answer, context: Context) -> None:
    async for news in answer:
        for said in news:
            await context.write(delta(said))
        if answer.complete:
            break
    await context.write(finish(answer.usage()))

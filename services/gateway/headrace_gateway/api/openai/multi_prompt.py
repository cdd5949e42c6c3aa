"""Several prompts in one call of /v1/completions: a request for each, and one answer of all.

Every prompt is checked before the first is submitted, and the first few are admitted together or
refused together; the others are submitted as these end, so that one call does not fill a lane. A
prompt that fails ends the call with its error, and what is still open of the call is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from headrace.errors import (
    BrokerUnavailable,
    ContextLengthExceeded,
    InvalidRequest,
    LaneFull,
    NoWorker,
    PatienceExhausted,
    RequestError,
    Unsupported,
)
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.api.openai.multi_prompt_run import MultiPromptRequest, MultiPromptRun
from headrace_gateway.base.calls import Call
from headrace_gateway.base.cooperative import cooperatively
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.output.answering import Answer
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.idempotency import apply_key
from headrace_gateway.resume.open_or_resume import HEADER as LAST_EVENT_ID
from headrace_gateway.resume.open_or_resume import RESUME_HEADER, RequestOpener, wants_event_ids
from headrace_gateway.submit.submitter import Submitter

_RETRY_S = 1.0

_NO_ROOM = (LaneFull, PatienceExhausted, NoWorker, BrokerUnavailable)
"""Refusals after which a prompt is retried once others of its call have been admitted."""


class MultiPromptHandler:
    """Checks all prompts of a call, and submits them a few at a time."""

    def __init__(
        self, submitter: Submitter, opener: RequestOpener, limits: GatewaySettings
    ) -> None:
        self._submitter, self._opener, self._limits = submitter, opener, limits

    async def answer(self, several: MultiPromptRequest, call: Call, reply: Reply) -> None:
        """Answer all prompts of a call; if this is cancelled, the open ones are abandoned.

        Raises:
            HeadraceError: a prompt was refused, or failed; nothing is held.
        """
        first = several.requested[0]
        _check(several, call, self._limits)
        with _name_prompt_in_errors(first):
            self._submitter.require_room(first)
        first = apply_key(first, call)
        named = [_named(each, first, number) for number, each in enumerate(several.requested)]
        names = [await self._checked(each) async for each in cooperatively(named)]
        # Why from a request: the checks put the lane into a generated id.
        reply.request_id = names[0].removesuffix("-0")
        run = MultiPromptRun(replace(several, requested=named), reply.request_id, reply, self)
        await run.run(self._limits)

    async def _checked(self, requested: GenerationRequest) -> str:
        """Return the id of the request; refuse what would be refused at any time."""
        with _name_prompt_in_errors(requested):
            request = await self._submitter.repeated(requested)
        return request.request_id

    async def opened(
        self, requested: GenerationRequest, *, wait_for_room: bool
    ) -> tuple[Answer, ValidRequest]:
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + self._limits.max_patience_s
        while True:
            try:
                with _name_prompt_in_errors(requested):
                    return await self._open(requested)
            except _NO_ROOM as error:
                pause_s = error.retry_after_s or _RETRY_S
                if not wait_for_room or now_s() + pause_s > until_s:
                    raise
            await asyncio.sleep(pause_s)

    async def _open(self, requested: GenerationRequest) -> tuple[Answer, ValidRequest]:
        if requested.idempotent:
            return await self._opener.open_or_join(requested)
        return await self._submitter.open(requested)


def _check(several: MultiPromptRequest, call: Call, limits: GatewaySettings) -> None:
    first, count = several.requested[0], len(several.requested)
    if count > limits.max_prompts:
        raise InvalidRequest(
            f"prompt has {count} prompts; one call may have {limits.max_prompts}. Send the others"
            " in further calls",
            field="prompt",
        )
    if first.background:
        raise Unsupported(
            f"background is served for one prompt, and this call has {count}; send a call for each",
            field="background",
        )
    if call.last_event_id or (first.stream and wants_event_ids(call)):
        header = LAST_EVENT_ID if call.last_event_id else RESUME_HEADER
        raise Unsupported(
            f"{header} is not served for several prompts in one call, whose stream has no position"
            " to come back to; send a call for each prompt, or send an Idempotency-Key and repeat"
            " the call under it",
            field=header,
        )


def _named(
    requested: GenerationRequest, first: GenerationRequest, number: int
) -> GenerationRequest:
    """Return the request with an id and a seed of its own, made from those of the call."""
    seed = requested.seed
    if seed is None and first.seed is not None:
        seed = (first.seed + number) % 2**64
    request_id = f"{first.request_id}-{number}"
    return replace(requested, request_id=request_id, seed=seed, idempotent=first.idempotent)


@contextmanager
def _name_prompt_in_errors(requested: GenerationRequest) -> Iterator[None]:
    """Name the prompt in a refusal that is raised inside."""
    try:
        yield
    except RequestError as error:
        field = requested.prompt.field
        is_of_prompt = error.field == field or isinstance(error, ContextLengthExceeded)
        if not is_of_prompt or field in error.message:
            raise
        raise type(error)(f"{field}: {error.message}", field=error.field) from error

"""Several prompts in one call of /v1/completions: a request for each, and one answer of all.

Every prompt is checked before the first is submitted, and the first few are admitted together or
refused together; the others are submitted as these end, so that one call does not fill a lane. A
prompt that fails ends the call with its error, and what is still open of the call is cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.errors import InvalidRequest, Unsupported
from headrace_gateway.api.bodies.generation import CompletionBody
from headrace_gateway.api.http.endpoint import HttpCall
from headrace_gateway.api.openai.multi_prompt_run import MultiPromptRun, name_prompt_in_errors
from headrace_gateway.base.calls import Call
from headrace_gateway.base.cooperative import cooperatively
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.idempotency import apply_key
from headrace_gateway.resume.open_or_resume import HEADER as LAST_EVENT_ID
from headrace_gateway.resume.open_or_resume import RESUME_HEADER, wants_event_ids


async def answer_prompts(
    http: HttpCall, body: CompletionBody, requests: Sequence[GenerationRequest]
) -> None:
    """Answer all prompts of a call; if this is cancelled, the open ones are abandoned.

    Args:
        requests: one for each prompt; they differ in the prompt alone.

    Raises:
        HeadraceError: a prompt was refused, or failed; nothing is held.
    """
    first, submitter = requests[0], http.services.submitter
    _check(requests, http.call, max_prompts=http.services.settings.max_prompts)
    with name_prompt_in_errors(first):
        submitter.require_room(first)
    first = apply_key(first, http.call)
    named = [_named(each, first, number) for number, each in enumerate(requests)]
    async for each in cooperatively(named):
        with name_prompt_in_errors(each):
            valid = await submitter.repeated(each)
    # Why from a request: the checks put the lane into a generated id.
    http.reply.request_id = valid.request_id.rpartition("-")[0]
    await MultiPromptRun(http, body, named).run()


def _check(requests: Sequence[GenerationRequest], call: Call, *, max_prompts: int) -> None:
    first, count = requests[0], len(requests)
    wants_ids = wants_event_ids(call)  # a malformed header is refused as it is for one prompt
    if count > max_prompts:
        raise InvalidRequest(
            f"prompt has {count} prompts; one call may have {max_prompts}. Send the others"
            " in further calls",
            field="prompt",
        )
    if first.background:
        raise Unsupported(
            f"background is served for one prompt, and this call has {count}; send a call for each",
            field="background",
        )
    if call.last_event_id or (first.stream and wants_ids):
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
    return replace(
        requested,
        request_id=request_id,
        seed=seed,
        idempotent=first.idempotent,
        is_part=number > 0,
    )

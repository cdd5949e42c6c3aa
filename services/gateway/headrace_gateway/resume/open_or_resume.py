"""Opens a new request, or resumes that of the call's Last-Event-ID or Idempotency-Key."""

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace_gateway.base.calls import Call
from headrace_gateway.base.quoting import quoted
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.position import read_event_id
from headrace_gateway.output.resumer import AnswerResumer
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.idempotency import HEADER as KEY_HEADER
from headrace_gateway.resume.idempotency import (
    idempotency_key,
    named_by_key,
    open_named,
    open_or_join,
)
from headrace_gateway.submit.submitter import Submitter

HEADER = "Last-Event-ID"
RESUME_HEADER = "X-Headrace-Resume"
_ASKED = {"true": True, "1": True, "false": False, "0": False}


def wants_event_ids(call: Call) -> bool:
    """Whether each event of a stream is to have an id. A call that comes back asks for them, too.

    Raises:
        InvalidRequest: the header says neither yes nor no.
    """
    value = call.headers.get(RESUME_HEADER.lower(), "false")
    if (asked := _ASKED.get(value.strip().lower())) is None:
        raise InvalidRequest(
            f"{RESUME_HEADER} is {quoted(value)}; it may be true or false", field=RESUME_HEADER
        )
    return asked or bool(call.last_event_id)


async def open_or_resume(
    requested: GenerationRequest, call: Call, submitter: Submitter, resumer: AnswerResumer
) -> tuple[Answer, ValidRequest]:
    """The answer, and the request as this call wrote it.

    Raises:
        HeadraceError: it was refused; nothing is held.
    """
    if not call.last_event_id:
        if (once := apply_key(requested, call)) is not None:
            return await open_or_join(once, submitter, resumer, detached=requested.background)
        named = requested.request_id != call.request_id
        return await open_named(requested, submitter, resumer, named=named)
    if not requested.stream:
        raise InvalidRequest(
            f"{HEADER} is for streams; ask for a stream, or leave it out", field=HEADER
        )
    event = read_event_id(call.last_event_id, field=HEADER)
    request = await submitter.repeated(requested)
    seeded = requested.seed is not None
    return await resumer.resume_as(event, request, field=HEADER, seeded=seeded), request


def apply_key(requested: GenerationRequest, call: Call) -> GenerationRequest | None:
    """The request by the name that its call's key makes; None of a call without one.

    Raises:
        InvalidRequest: it has a name already, or the key is none.
    """
    if (key := idempotency_key(call)) is None:
        return None
    if requested.request_id != call.request_id:
        raise InvalidRequest(
            f"request_id names the request already; leave it or {KEY_HEADER} out",
            field=KEY_HEADER,
        )
    return named_by_key(requested, key)


def resume_position(request_id: str, after: str, call: Call) -> str:
    """Where a reader of a request has come to, by what it says or by its last event.

    Raises:
        InvalidRequest: that was another request's.
    """
    if after or not call.last_event_id:
        return after
    event = read_event_id(call.last_event_id, field=HEADER)
    if event.request_id != request_id:
        raise InvalidRequest(
            f"{HEADER} is of request {event.request_id}, the path of {request_id}", field=HEADER
        )
    return event.position

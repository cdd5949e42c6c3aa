"""POST /v1/responses: from a body to the response, whole, in events, or in the background."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from headrace.errors import (
    BrokerUnavailable,
    HeadraceError,
    InvalidRequest,
    RequestNotFound,
    Unsupported,
)
from headrace.v1 import requests_pb2
from headrace.v1.common_pb2 import ModelTask
from headrace.v1.requests_pb2 import Request
from headrace_gateway.api.http.endpoint import HttpCall, endpoint
from headrace_gateway.api.responses.delivery import (
    GOES_ON,
    RESPONSE_ERRORS,
    deliver_response,
    send_ended,
)
from headrace_gateway.api.responses.finding import FoundResponse
from headrace_gateway.api.responses.past import whole_input
from headrace_gateway.api.responses.wire.bodies import CountBody, ResponseBody
from headrace_gateway.api.responses.wire.convert import (
    body_digest,
    count_request,
    described,
    response_request,
)
from headrace_gateway.api.responses.wire.resource import QUEUED, Description, response_json
from headrace_gateway.api.responses.wire.truncating import truncated
from headrace_gateway.base.generated_ids import with_lane
from headrace_gateway.output.answering import Answer
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.idempotency import HEADER, apply_key

Json = dict[str, Any]

log = logging.getLogger(__name__)


_GENERATES = (ModelTask.MODEL_TASK_GENERATE,)


@endpoint(ResponseBody, errors=RESPONSE_ERRORS, tasks=_GENERATES)
async def create(http: HttpCall, body: ResponseBody) -> None:
    """Answer the call."""
    if http.call.row is None:
        http = _named(http, body)
    else:
        body = _of_row(body)
    services, tenant = http.services, http.call.caller.tenant
    if http.call.last_event_id:
        raise Unsupported(
            "Last-Event-ID is not served here; GET /v1/responses/{id} with `stream` and"
            " `starting_after`",
            field="Last-Event-ID",
        )
    keyed = apply_key(response_request(body, [_PLACEHOLDER], http.call, stored=False), http.call)
    if keyed.idempotent and body.is_stored and await _repeated(http, body, keyed.request_id):
        return
    if body.is_stored or body.truncation == "auto":
        # Why first: the past is read, and truncated, in vain where there is no room.
        services.submitter.require_room(keyed)
    whole = await whole_input(services, tenant, body)
    description = described(body, keyed, whole.items, whole.own_from, services.conversations.unix_s)
    request = await _request(http, body, whole.items)
    if not body.is_stored:
        await _send(http, body, description, await _opened(http, body, request))
        return
    services.submitter.require_room(request)
    stored = description.as_json()
    if not await services.conversations.put_description(tenant, description.request_id, stored):
        # Another call has come with the key since.
        await _repeated(http, body, description.request_id)
        return
    async with _deleted_if_refused(http, description.request_id):
        if whole.conversation is not None:
            await whole.conversation.claim(description.response_id)
        answer = await _opened(http, body, request)
    await _send(http, body, description, answer)


@endpoint(CountBody, tasks=_GENERATES)
async def count_tokens(http: HttpCall, body: CountBody) -> None:
    """Answer with the number of tokens that a response's model would be given."""
    whole = await whole_input(http.services, http.call.caller.tenant, body, is_read=True)
    request = count_request(body, whole.items, http.call)
    _, token_ids = await http.services.submitter.encoded(request)
    counted = {"object": "response.input_tokens", "input_tokens": len(token_ids)}
    await http.reply.send_json(counted)


_PLACEHOLDER = {"type": "message", "role": "user", "content": [{"text": "", "type": "input_text"}]}
"""In place of items that are not read yet, for what is refused without them."""


def _of_row(body: ResponseBody) -> ResponseBody:
    """Return the body of a row of a batch: its response is in the batch's output, and only there,
    also where `store` is true, as OpenAI's clients may write it.

    Raises:
        InvalidRequest: the response would have to be stored.
    """
    for name in ("background", "conversation"):
        if getattr(body, name):
            raise InvalidRequest(
                f"{name} is set; a response of a batch is not stored, but in the batch's output:"
                f" leave {name} out",
                field=name,
            )
    return body.model_copy(update={"store": False, "stream": False})


def _named(http: HttpCall, body: ResponseBody) -> HttpCall:
    """Return the call with the id that its request will have: its response's is made of it."""
    card = http.services.catalog.get(body.model, http.call.caller).card
    request_id = with_lane(card.model, http.call.request_id)
    return replace(http, call=replace(http.call, request_id=request_id))


async def _request(http: HttpCall, body: ResponseBody, items: list[Json]) -> GenerationRequest:
    request = response_request(body, items, http.call, stored=body.is_stored)
    if body.truncation == "auto":
        request = await truncated(http.services.submitter, request)
    return request


async def _repeated(http: HttpCall, body: ResponseBody, request_id: str) -> bool:
    """Answer a call whose key a stored response has; return False if none has.

    Raises:
        InvalidRequest: the response is of another body.
    """
    services, tenant = http.services, http.call.caller.tenant
    known = await services.conversations.description(tenant, request_id)
    if known is None:
        return False
    description = Description.of(known)
    if description.digest not in ("", body_digest(body)):
        raise InvalidRequest(
            f"request {request_id} had other parameters than this one; repeat its parameters, or"
            f" omit {HEADER}",
            field=HEADER,
        )
    result = await services.conversations.result(tenant, request_id)
    # A response that failed is made again, unless it is a background one: that keeps its end.
    if result is not None and (description.background or not result.outcome.HasField("error")):
        await send_ended(
            http, FoundResponse(services, tenant, description), result, stream=bool(body.stream)
        )
        return True
    request = await _request(http, body, description.input)
    await _send(http, body, description, await _opened(http, body, request))
    return True


_MAY_RUN = (*GOES_ON, BrokerUnavailable, RequestNotFound)
"""After these a request may have been submitted all the same."""


@asynccontextmanager
async def _deleted_if_refused(http: HttpCall, request_id: str) -> AsyncIterator[None]:
    """Delete the description that was stored of a request, if the request is not submitted."""
    try:
        yield
    except _MAY_RUN:
        raise
    except HeadraceError:
        try:
            await http.services.conversations.delete(http.call.caller.tenant, request_id)
        except BrokerUnavailable as error:
            # It is found as failed then, by whoever knows its id.
            log.info("response.not_deleted", extra={"why": error.message})
        raise


async def _opened(
    http: HttpCall, body: ResponseBody, request: GenerationRequest
) -> Answer | Request:
    """Submit a request; return its answer, or how far it is if it is read in the background.

    Raises:
        HeadraceError: it was refused, and is not submitted; or it is one of _MAY_RUN.
    """
    if body.background and not body.stream:
        return await http.services.opener.begin(request, http.call)
    answer, _ = await http.services.opener.open(apply_key(request, http.call), http.call)
    return answer


async def _send(
    http: HttpCall, body: ResponseBody, description: Description, opened: Answer | Request
) -> None:
    if isinstance(opened, Answer):
        await deliver_response(opened, http, description, stream=bool(body.stream))
        return
    http.reply.request_id = opened.request_id
    response = response_json(description, QUEUED, [])
    if opened.state == requests_pb2.REQUEST_STATE_ENDED:
        tenant = http.call.caller.tenant
        response = await FoundResponse(http.services, tenant, description).response()
    await http.reply.send(json.dumps(response).encode())

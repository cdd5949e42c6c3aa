"""POST /v1/responses: from a body to the response, whole, in events, or in the background."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from headrace.errors import BrokerUnavailable, HeadraceError, Unsupported
from headrace.v1 import requests_pb2
from headrace_gateway.api.http.endpoint import HttpCall, endpoint
from headrace_gateway.api.responses.delivery import RESPONSE_ERRORS, deliver_response
from headrace_gateway.api.responses.finding import FoundResponse
from headrace_gateway.api.responses.past import WholeInput, whole_input
from headrace_gateway.api.responses.wire.bodies import CountBody, ResponseBody
from headrace_gateway.api.responses.wire.convert import count_request, described, response_request
from headrace_gateway.api.responses.wire.resource import QUEUED, Description, response_json
from headrace_gateway.api.responses.wire.truncating import truncated
from headrace_gateway.base.generated_ids import with_lane
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.idempotency import apply_key

log = logging.getLogger(__name__)


@endpoint(ResponseBody, errors=RESPONSE_ERRORS)
async def create(http: HttpCall, body: ResponseBody) -> None:
    """Answer the call."""
    http, services, tenant = _named(http, body), http.services, http.call.caller.tenant
    if http.call.last_event_id:
        raise Unsupported(
            "Last-Event-ID is not served here; GET /v1/responses/{id} with `stream` and"
            " `starting_after`",
            field="Last-Event-ID",
        )
    keyed = apply_key(response_request(body, [_PLACEHOLDER], http.call, stored=False), http.call)
    known = None
    if keyed.idempotent and body.is_stored:
        known = await services.conversations.description(tenant, keyed.request_id)
    if known is not None:
        description = Description.of(known)
        whole = WholeInput(description.input, description.own_from)
    else:
        whole = await whole_input(services, tenant, body)
        now_s = services.conversations.unix_s
        description = described(body, keyed, whole.items, whole.own_from, now_s)
    request = response_request(body, whole.items, http.call, stored=body.is_stored)
    if body.truncation == "auto":
        request = await truncated(services.submitter, request)
    if known is not None or not body.is_stored:
        await _answer(http, body, request, description)
        return
    services.submitter.require_room(request)
    async with _stored(http, description, whole):
        await _answer(http, body, request, description)


@endpoint(CountBody)
async def count_tokens(http: HttpCall, body: CountBody) -> None:
    """Answer with the number of tokens that a response's model would be given."""
    whole = await whole_input(http.services, http.call.caller.tenant, body, is_read=True)
    request = count_request(body, whole.items, http.call)
    _, token_ids = await http.services.submitter.encoded(request)
    counted = {"object": "response.input_tokens", "input_tokens": len(token_ids)}
    await http.reply.send_json(counted)


_PLACEHOLDER = {"type": "message", "role": "user", "content": [{"text": "", "type": "input_text"}]}
"""In place of items that are not read yet, for what is refused without them."""


def _named(http: HttpCall, body: ResponseBody) -> HttpCall:
    """Return the call with the id that its request will have: its response's is made of it."""
    card = http.services.catalog.get(body.model, http.call.caller).card
    request_id = with_lane(card.model, http.call.request_id)
    return replace(http, call=replace(http.call, request_id=request_id))


@asynccontextmanager
async def _stored(
    http: HttpCall, description: Description, whole: WholeInput
) -> AsyncIterator[None]:
    """Store the description of a response, which is deleted if that is not made."""
    store, tenant = http.services.conversations, http.call.caller.tenant
    await store.put_description(tenant, description.request_id, description.as_json())
    try:
        if whole.conversation is not None:
            await whole.conversation.claim(description.response_id)
        yield
    except HeadraceError:
        try:
            await store.delete(tenant, description.request_id)
        except BrokerUnavailable as error:
            # It is found as failed then, by whoever knows its id.
            log.info("response.not_deleted", extra={"why": error.message})
        raise


async def _answer(
    http: HttpCall, body: ResponseBody, request: GenerationRequest, description: Description
) -> None:
    services, call = http.services, http.call
    if body.background and not body.stream:
        begun = await services.opener.begin(request, call)
        http.reply.request_id = begun.request_id
        response = response_json(description, QUEUED, [])
        if begun.state == requests_pb2.REQUEST_STATE_ENDED:
            response = await FoundResponse(services, call.caller.tenant, description).response()
        await http.reply.send(json.dumps(response).encode())
        return
    answer, _ = await services.opener.open(apply_key(request, call), call)
    await deliver_response(answer, http, description, stream=bool(body.stream))

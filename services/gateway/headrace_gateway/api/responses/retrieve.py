"""Stored responses: as they are, their events, their input; cancelled and deleted."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from headrace.errors import (
    BrokerUnavailable,
    GatewayUnreachable,
    InvalidRequest,
    RequestNotFound,
    ResourceNotFound,
)
from headrace.internal.v1.reports_pb2 import LocateRequest
from headrace.v1.responses_pb2 import (
    CancelResponseRequest,
    DeleteResponseRequest,
    GetResponseRequest,
    ListInputItemsRequest,
)
from headrace_gateway.api.http.endpoint import HttpCall
from headrace_gateway.api.responses.conversation import open_conversation
from headrace_gateway.api.responses.delivery import GOES_ON, EventStream
from headrace_gateway.api.responses.finding import FoundResponse, find_response
from headrace_gateway.api.responses.wire.pages import page_of
from headrace_gateway.resume.location import Location

_MOVES = 8
"""How often a stream follows its request to another gateway."""
_CANCELLING_S = 5.0
"""The longest wait for the end of a request that was cancelled at another gateway."""


async def get(http: HttpCall, request: GetResponseRequest) -> None:
    found = await _found(http, request.response_id)
    if not request.stream:
        await _send(http, await found.response())
        return
    last_seen = request.starting_after if request.HasField("starting_after") else -1
    if last_seen < -1:
        raise InvalidRequest(
            f"starting_after is {last_seen}; it is the number of an event, 0 or more",
            field="starting_after",
        )
    await _stream(http, found, EventStream(http, last_seen=last_seen))


async def _stream(http: HttpCall, found: FoundResponse, events: EventStream) -> None:
    """Send events to the end of a response, wherever its request goes meanwhile."""
    services, request_id = http.services, found.description.request_id
    http.reply.request_id = request_id
    for _ in range(_MOVES):
        result = await services.conversations.result(found.tenant, request_id)
        if result is not None:
            await events.send_ended(found, result)
            return
        answer = await services.opener.resume(found.key, "")
        try:
            async with answer:
                await events.send(answer, found.description)
            return
        except GOES_ON as error:
            unreachable = error
    raise unreachable


async def cancel(http: HttpCall, request: CancelResponseRequest) -> None:
    found = await _found(http, request.response_id)
    if not found.description.background:
        raise InvalidRequest(
            "only responses that were created with `background` true can be cancelled; close the"
            " connection of another one",
            field="response_id",
        )
    if not await _is_stored(found):
        with suppress(RequestNotFound):
            await _send(http, await found.located(await _cancelled(found)))
            return
    await _send(http, await found.response())


async def delete(http: HttpCall, request: DeleteResponseRequest) -> None:
    found = await _found(http, request.response_id)
    description, services = found.description, http.services
    if description.conversation:
        # What it adds to that stays there.
        with suppress(ResourceNotFound):
            await open_conversation(services, found.tenant, description.conversation, is_read=True)
    if not await _is_stored(found):
        # If it cannot be reached, it ends by itself; nothing of it can be found any more.
        with suppress(RequestNotFound, GatewayUnreachable, BrokerUnavailable):
            await _cancelled(found)
    await services.conversations.delete(found.tenant, description.request_id)
    await _send(
        http, {"id": description.response_id, "object": "response.deleted", "deleted": True}
    )


async def _cancelled(found: FoundResponse) -> Location:
    """Cancel the request of a response; return where it is once it has ended."""
    requests = found.services.requests
    location = await requests.locate(found.key, LocateRequest.VERB_CANCEL)
    # Why: the leader of one that is open at another gateway answers how it stood before.
    if location.result is not None:
        return location
    return await requests.wait(found.key, _CANCELLING_S)


async def input_items(http: HttpCall, request: ListInputItemsRequest) -> None:
    found = await _found(http, request.response_id)
    await _send(http, page_of(found.description.input, request))


async def _is_stored(found: FoundResponse) -> bool:
    """Return whether the result of a response is stored."""
    request_id = found.description.request_id
    return await found.services.conversations.result(found.tenant, request_id) is not None


async def _found(http: HttpCall, response_id: str) -> FoundResponse:
    return await find_response(http.services, http.call.caller.tenant, response_id)


async def _send(http: HttpCall, value: dict[str, Any]) -> None:
    await http.reply.send(json.dumps(value).encode())

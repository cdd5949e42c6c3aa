"""What a response stands on: earlier responses, conversations, and items that are referred to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.responses.conversation import OpenConversation, open_conversation
from headrace_gateway.api.responses.finding import find_response
from headrace_gateway.api.responses.wire.bodies import InputBody
from headrace_gateway.api.responses.wire.resource import ENDED
from headrace_gateway.base.quoting import quoted

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WholeInput:
    items: list[Json]
    own_from: int = 0
    """Index of the first item that is the body's own."""
    conversation: OpenConversation | None = None


async def whole_input(
    services: ApiServices, tenant: str, body: InputBody, *, is_read: bool = False
) -> WholeInput:
    """Return the items that a model is given for a body.

    Args:
        is_read: no response is made of it.

    Raises:
        ResourceNotFound: what it refers to is not stored, or not any more.
        ResourceExists: another response of its conversation is being made.
    """
    past, conversation = list[Json](), None
    if body.previous_response_id:
        past = await _with_output(services, tenant, body.previous_response_id)
    elif body.conversation:
        conversation = await open_conversation(services, tenant, body.conversation, is_read=is_read)
        past = conversation.items
    own = [
        await _referred(services, tenant, item["id"], past)
        if item["type"] == "item_reference"
        else item
        for item in body.input
    ]
    return WholeInput([*past, *own], len(past), conversation)


async def _with_output(services: ApiServices, tenant: str, response_id: str) -> list[Json]:
    """Return all that the model was given for a response, and what it has made of it."""
    try:
        found = await find_response(services, tenant, response_id)
    except ResourceNotFound as error:
        raise ResourceNotFound(error.message, field="previous_response_id") from error
    response = await found.response()
    if response["status"] not in ENDED:
        raise InvalidRequest(
            f"response {quoted(response_id)} has not ended; wait for it, or cancel it",
            field="previous_response_id",
        )
    return [*found.description.input, *response["output"]]


async def _referred(services: ApiServices, tenant: str, item_id: str, past: list[Json]) -> Json:
    """Return the item of this id: of the past, or of the output of a response, which it names."""
    candidates = past
    if not any(item["id"] == item_id for item in past):
        request_id = item_id.partition("_")[2].rpartition("_")[0]
        try:
            found = await find_response(services, tenant, request_id)
            candidates = (await found.response())["output"]
        except ResourceNotFound:
            candidates = []
    for item in candidates:
        if item["id"] == item_id:
            return item
    raise ResourceNotFound(f"item {quoted(item_id)} not found", field="input")

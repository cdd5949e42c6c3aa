"""What a response stands on: earlier responses, conversations, and items that are referred to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.responses.conversation import OpenConversation, open_conversation
from headrace_gateway.api.responses.finding import find_response
from headrace_gateway.api.responses.wire.bodies import InputBody
from headrace_gateway.api.responses.wire.items import as_past, with_fresh_ids
from headrace_gateway.api.responses.wire.resource import ENDED
from headrace_gateway.base.quoting import quoted
from headrace_gateway.conversations.packing import text_length

Json = dict[str, Any]

_MAX_REFERRED = 100
"""Other responses that the items of one input may be of."""


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
    references = _References(services, tenant, past)
    own = [
        await references.item(item["id"]) if item["type"] == "item_reference" else item
        for item in body.input
    ]
    return WholeInput(with_fresh_ids([*past, *own]), len(past), conversation)


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
    return [*found.description.input, *as_past(response["output"])]


class _References:
    """Finds the items that an input refers to: of its past, or of the output of other responses,
    each of which is read once."""

    def __init__(self, services: ApiServices, tenant: str, past: list[Json]) -> None:
        self._services, self._tenant = services, tenant
        self._items = {item["id"]: item for item in reversed(past)}
        self._read = set[str]()
        self._left = services.settings.max_body_bytes

    async def item(self, item_id: str) -> Json:
        """Return the item of this id.

        Raises:
            ResourceNotFound: there is none.
            InvalidRequest: there are too many, or they are too long together.
        """
        if item_id not in self._items:
            await self._read_output(item_id)
        if (item := self._items.get(item_id)) is None:
            raise ResourceNotFound(f"item {quoted(item_id)} not found", field="input")
        self._left -= text_length(item)
        if self._left < 0:
            most = self._services.settings.max_body_bytes
            raise InvalidRequest(
                f"the items that input refers to have more than {most} characters; refer to fewer",
                field="input",
            )
        return item

    async def _read_output(self, item_id: str) -> None:
        """Read the response whose output has the item: its id is in the item's."""
        request_id = item_id.partition("_")[2].rpartition("_")[0]
        if request_id in self._read:
            return
        if len(self._read) == _MAX_REFERRED:
            raise InvalidRequest(
                f"input refers to items of more than {_MAX_REFERRED} other responses; send the"
                " items themselves",
                field="input",
            )
        self._read.add(request_id)
        with suppress(ResourceNotFound):
            found = await find_response(self._services, self._tenant, request_id)
            for item in as_past((await found.response())["output"]):
                self._items.setdefault(item["id"], item)

"""The calls of /v1/conversations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from headrace.errors import InvalidRequest, ResourceNotFound
from headrace.v1.responses_pb2 import (
    ConversationBodyRequest,
    DeleteConversationItemRequest,
    DeleteConversationRequest,
    GetConversationItemRequest,
    GetConversationRequest,
    ListConversationItemsRequest,
)
from headrace_gateway.api.http.endpoint import HttpCall
from headrace_gateway.api.http.read_body import read_body
from headrace_gateway.api.responses.conversation import (
    OpenConversation,
    create_conversation,
    open_conversation,
)
from headrace_gateway.api.responses.wire.bodies import (
    ConversationBody,
    ConversationItemsBody,
    ConversationUpdateBody,
)
from headrace_gateway.api.responses.wire.items import with_fresh_ids
from headrace_gateway.api.responses.wire.pages import list_of, page_of
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings

_MAX_ITEMS = 20
"""Of one call."""


async def create(http: HttpCall, data: bytes) -> None:
    body = read_body(ConversationBody, data or b"{}", http.call, http.services.settings, http.reply)
    _check_items(body.items, fewest=0)
    created = await create_conversation(
        http.services, http.call.caller.tenant, body.items, body.metadata or {}
    )
    await _send(http, created.as_json())


async def get(http: HttpCall, request: GetConversationRequest) -> None:
    opened = await _open(http, request.conversation_id, is_read=True)
    await _send(http, opened.conversation.as_json())


async def update(http: HttpCall, request: ConversationBodyRequest) -> None:
    opened, settings = await _open(http, request.conversation_id, is_read=True), _settings(http)
    body = read_body(ConversationUpdateBody, request.body.data, http.call, settings, http.reply)
    changed = replace(opened.conversation, metadata=body.metadata or {})
    await _send(http, (await opened.replace(changed)).as_json())


async def delete(http: HttpCall, request: DeleteConversationRequest) -> None:
    # Why not opened: what a response is to add to it need not be.
    store, tenant = http.services.conversations, http.call.caller.tenant
    conversation_id = request.conversation_id
    await store.conversation(tenant, conversation_id)
    await store.delete(tenant, conversation_id)
    deleted = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
    await _send(http, deleted)


async def add_items(http: HttpCall, request: ConversationBodyRequest) -> None:
    opened, settings = await _open(http, request.conversation_id), _settings(http)
    body = read_body(ConversationItemsBody, request.body.data, http.call, settings, http.reply)
    _check_items(body.items, fewest=1)
    items = with_fresh_ids([*opened.items, *body.items])
    await opened.replace(replace(opened.conversation, items=items))
    await _send(http, list_of(items[len(opened.items) :]))


async def list_items(http: HttpCall, request: ListConversationItemsRequest) -> None:
    opened = await _open(http, request.conversation_id, is_read=True)
    await _send(http, page_of(opened.items, request))


async def get_item(http: HttpCall, request: GetConversationItemRequest) -> None:
    opened = await _open(http, request.conversation_id, is_read=True)
    await _send(http, opened.items[_index_of(opened, request.item_id)])


async def delete_item(http: HttpCall, request: DeleteConversationItemRequest) -> None:
    opened = await _open(http, request.conversation_id)
    at = _index_of(opened, request.item_id)
    items = [*opened.items[:at], *opened.items[at + 1 :]]
    await _send(http, (await opened.replace(replace(opened.conversation, items=items))).as_json())


def _settings(http: HttpCall) -> GatewaySettings:
    return http.services.settings


def _index_of(opened: OpenConversation, item_id: str) -> int:
    for at, item in enumerate(opened.items):
        if item["id"] == item_id:
            return at
    raise ResourceNotFound(f"item {quoted(item_id)} not found", field="item_id")


def _check_items(items: list[dict[str, Any]], *, fewest: int) -> None:
    if not fewest <= len(items) <= _MAX_ITEMS:
        raise InvalidRequest(
            f"items has {len(items)} entries; it may have {fewest} to {_MAX_ITEMS}", field="items"
        )
    for i, item in enumerate(items):
        if item["type"] == "item_reference":
            raise InvalidRequest(
                f"items[{i}] is a reference; send the item itself", field=f"items[{i}]"
            )


async def _open(http: HttpCall, conversation_id: str, *, is_read: bool = False) -> OpenConversation:
    tenant = http.call.caller.tenant
    return await open_conversation(http.services, tenant, conversation_id, is_read=is_read)


async def _send(http: HttpCall, value: dict[str, Any]) -> None:
    await http.reply.send(json.dumps(value).encode())

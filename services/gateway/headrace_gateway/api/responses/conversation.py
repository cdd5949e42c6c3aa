"""Conversations: their items, and the response that is being added to one.

A response is noted in its conversation before its request is submitted. Its items are added when
the conversation is next used after the response has ended, whichever gateway that is:

    items: a                       POST /v1/responses {"conversation": c, "input": b}
    items: a     pending: resp_1   resp_1 runs; another response of c is refused meanwhile
    items: a     pending: resp_1   its gateway dies; another one continues it, to its end
    items: a b X                   GET /v1/conversations/c/items: X is the output of resp_1

A response that was refused has no description, and one that failed adds nothing; nor does one whose
items are more than a conversation may have.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any

from headrace.errors import InvalidRequest, ResourceExists, ResourceNotFound
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.responses.finding import find_response
from headrace_gateway.api.responses.wire.items import as_past, with_fresh_ids
from headrace_gateway.api.responses.wire.resource import COMPLETED, ENDED, INCOMPLETE
from headrace_gateway.base.quoting import quoted
from headrace_gateway.conversations.store import CONVERSATION_PREFIX

log = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    created_at: int
    metadata: dict[str, str]
    items: list[Json]
    pending: str = ""
    """Id of the response whose items are to be added; empty: none."""

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at,
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class OpenConversation:
    """One version of a conversation, which is replaced as a whole."""

    services: ApiServices
    tenant: str
    conversation: Conversation
    sequence: int

    @property
    def items(self) -> list[Json]:
        return self.conversation.items

    async def replace(self, changed: Conversation) -> Conversation:
        """Store a new version.

        Raises:
            ResourceExists: it has changed meanwhile.
        """
        conversation_id = self.conversation.id
        is_stored = await self.services.conversations.put_conversation(
            self.tenant, conversation_id, asdict(changed), after=self.sequence
        )
        if not is_stored:
            raise _locked(conversation_id)
        return changed

    async def claim(self, response_id: str) -> None:
        """Note the response that is to be added, so that no other one is made meanwhile.

        Raises:
            ResourceExists: another one is, or the items have changed.
        """
        await self.replace(replace(self.conversation, pending=response_id))


async def create_conversation(
    services: ApiServices, tenant: str, items: list[Json], metadata: dict[str, str]
) -> Conversation:
    created = Conversation(
        f"{CONVERSATION_PREFIX}{secrets.token_hex(16)}",
        int(services.conversations.unix_s),
        metadata,
        with_fresh_ids(items),
    )
    opened = OpenConversation(services, tenant, created, 0)
    return await opened.replace(created)


async def open_conversation(
    services: ApiServices, tenant: str, conversation_id: str, *, is_read: bool = False
) -> OpenConversation:
    """Return a conversation with all items of the responses that have ended.

    Args:
        is_read: it is not changed, so a response may be under way.

    Raises:
        ResourceNotFound: there is none.
        ResourceExists: a response of it is under way.
    """
    while True:
        stored, sequence = await services.conversations.conversation(tenant, conversation_id)
        opened = OpenConversation(services, tenant, Conversation(**stored), sequence)
        if not opened.conversation.pending:
            return opened
        added = await _items_of(services, tenant, opened.conversation.pending)
        if added is None:
            if is_read:
                return opened
            raise _locked(conversation_id)
        await _settle(opened, added)


async def _settle(opened: OpenConversation, added: list[Json]) -> None:
    """Store a conversation with what its response adds, unless it has changed meanwhile."""
    store, stored = opened.services.conversations, opened.conversation
    settled = replace(stored, items=with_fresh_ids([*stored.items, *added]), pending="")
    try:
        await store.put_conversation(
            opened.tenant, stored.id, asdict(settled), after=opened.sequence
        )
    except InvalidRequest as error:
        # Why: it could be neither read nor used again.
        log.warning("conversation.full", extra={"tenant": opened.tenant, "why": error.message})
        await store.put_conversation(
            opened.tenant, stored.id, asdict(replace(stored, pending="")), after=opened.sequence
        )


async def _items_of(services: ApiServices, tenant: str, response_id: str) -> list[Json] | None:
    """Return what a response adds to its conversation; None while it has not ended."""
    try:
        found = await find_response(services, tenant, response_id)
    except ResourceNotFound:
        return []
    response = await found.response()
    if response["status"] not in ENDED:
        return None
    if response["status"] not in (COMPLETED, INCOMPLETE):
        return []
    own = found.description.input[found.description.own_from :]
    return [*own, *as_past(response["output"])]


def _locked(conversation_id: str) -> ResourceExists:
    return ResourceExists(
        f"conversation {quoted(conversation_id)} is locked: another call is adding to it; retry"
        " when that has ended",
        field="conversation",
    )

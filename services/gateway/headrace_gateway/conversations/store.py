"""Stores responses and conversations with the broker, and finds them again.

A response has two parts: its description, stored before its request is submitted, and its result,
stored by the gateway that settles the request, whichever that is. What has a description and no
result yet is under way, or its result is elsewhere (`headrace_gateway.resume`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from headrace.bus import BusError
from headrace.bus.objects import MAX_PART_BYTES, Conversations, PartChanged, StoredPart
from headrace.clock import Clock
from headrace.errors import BrokerUnavailable, ResourceNotFound
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.request_keys import public_id, tenant_of
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.conversations.bounds import AddedParts, newest_within
from headrace_gateway.conversations.packing import TooLong, packed, unpacked
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S

log = logging.getLogger(__name__)

RESPONSE_PREFIX, CONVERSATION_PREFIX = "resp_", "conv_"
_DESCRIPTION, _RESULT, _ITEMS = "description", "result", "items"
_TENANT_MS = "tenant_create_ms"
"""Member that has the time at which the tenant was created that has stored it."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

Json = dict[str, Any]


class ConversationStore:
    """Responses and conversations of all tenants. All methods raise BrokerUnavailable.

    A tenant that has the name of one that was deleted does not find what that one has stored.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        bus: Conversations,
        clock: Clock,
        created_ms: Callable[[str], int] = lambda tenant: 0,
    ) -> None:
        """`created_ms`: returns the time at which a tenant was created; 0: unknown."""
        self._created_ms = created_ms
        self._settings, self._bus, self._clock = settings, bus, clock
        self._added = AddedParts(settings.stored_responses_bytes, settings.stored_responses_parts)

    @property
    def unix_s(self) -> float:
        """Return the time, by which what is stored is dated."""
        return self._clock.unix_s()

    async def put_description(self, tenant: str, request_id: str, description: Json) -> bool:
        """Store what a response is of; return False if another call has stored it already.

        Raises:
            InvalidRequest: it is too large.
        """
        payload = await self._packed(tenant, description, "input")
        place = request_id, _DESCRIPTION
        if await self._replace(tenant, place, payload, after=0):
            return True
        if await self.description(tenant, request_id) is not None:
            return False
        # Why: a key makes the same id for whoever has the tenant's name.
        await self.delete(tenant, request_id)
        return await self._replace(tenant, place, payload, after=0)

    async def description(self, tenant: str, request_id: str) -> Json | None:
        """Return what a response is of; None if there is none."""
        found = await self._get(tenant, request_id, _DESCRIPTION)
        return None if found is None else await self._unpacked(tenant, found.payload)

    async def store_result(self, result: ResultRecord) -> None:
        """Store the result of a response's request.

        Raises:
            BusError: it is not known to be stored.
        """
        tenant, request_id = tenant_of(result.request_id), public_id(result.request_id)
        payload = result.SerializeToString()
        if len(payload) > MAX_PART_BYTES:
            log.error("response.too_large", extra={"request_id": request_id})
            return
        await self._bus.put_part(
            tenant, request_id, _RESULT, payload, kept_s=self._settings.stored_responses_ttl_s
        )
        await self._keep_bounds(tenant, len(payload))

    async def result(self, tenant: str, request_id: str) -> ResultRecord | None:
        """Return the stored result of a response's request; None if there is none."""
        found = await self._get(tenant, request_id, _RESULT)
        return None if found is None else ResultRecord.FromString(found.payload)

    async def put_conversation(
        self, tenant: str, conversation_id: str, conversation: Json, *, after: int
    ) -> bool:
        """Store a conversation; return False if its stored version has another sequence.

        Raises:
            InvalidRequest: it is too large.
        """
        payload = await self._packed(tenant, conversation, "items")
        return await self._replace(tenant, (conversation_id, _ITEMS), payload, after=after)

    async def conversation(self, tenant: str, conversation_id: str) -> tuple[Json, int]:
        """Return a conversation and the sequence of its stored version.

        Raises:
            ResourceNotFound: there is none.
        """
        found = await self._get(tenant, conversation_id, _ITEMS)
        conversation = None if found is None else await self._unpacked(tenant, found.payload)
        if found is None or conversation is None:
            raise ResourceNotFound(
                f"conversation {quoted(conversation_id)} not found", field="conversation"
            )
        return conversation, found.sequence

    async def delete(self, tenant: str, item_id: str) -> None:
        """Delete a response, by the id of its request, or a conversation."""
        try:
            await self._bus.delete_item(tenant, item_id)
        except BusError as error:
            raise _unavailable(error) from error

    async def _replace(
        self, tenant: str, place: tuple[str, str], payload: bytes, *, after: int
    ) -> bool:
        """Store a part, by its item's id and its name; return False if it has changed."""
        kept_s = self._settings.stored_responses_ttl_s
        try:
            await self._bus.replace_part(tenant, *place, payload, after=after, kept_s=kept_s)
        except PartChanged:
            return False
        except BusError as error:
            raise _unavailable(error) from error
        await self._try_keep_bounds(tenant, len(payload))
        return True

    async def _get(self, tenant: str, item_id: str, part: str) -> StoredPart | None:
        if not is_id(item_id):
            return None
        try:
            return await self._bus.get_part(tenant, item_id, part)
        except BusError as error:
            raise _unavailable(error) from error

    async def _packed(self, tenant: str, value: Json, field: str) -> bytes:
        return await packed(value | {_TENANT_MS: self._created_ms(tenant)}, field)

    async def _unpacked(self, tenant: str, payload: bytes) -> Json | None:
        """Return what was stored; None if that was by an earlier tenant of the name."""
        try:
            value = await unpacked(payload)
        except TooLong as error:
            log.error("responses.unreadable", extra={"tenant": tenant, "why": str(error)})
            return None
        stored_ms, created_ms = value.pop(_TENANT_MS, 0), self._created_ms(tenant)
        return value if stored_ms == created_ms or 0 in (stored_ms, created_ms) else None

    async def _try_keep_bounds(self, tenant: str, added_bytes: int) -> None:
        try:
            await self._keep_bounds(tenant, added_bytes)
        except BusError as error:
            # It is stored; the next check bounds the tenant.
            log.warning("responses.not_bounded", extra={"tenant": tenant, "why": str(error)})

    async def _keep_bounds(self, tenant: str, added_bytes: int) -> None:
        if not self._added.add(tenant, added_bytes, now_s=self._clock.monotonic_s()):
            return
        sizes = await self._bus.stored_parts(tenant)
        kept = newest_within(
            sizes, max_bytes=self._added.max_bytes, max_parts=self._added.max_parts
        )
        if kept < len(sizes):
            log.info("responses.evicted", extra={"tenant": tenant, "parts": len(sizes) - kept})
            await self._bus.keep_newest(tenant, kept)


def is_id(text: str) -> bool:
    """Return whether it may be the id of anything that is stored."""
    return _ID.fullmatch(text) is not None


def request_id_of(response_id: str) -> str:
    """Return the id of a response's request, by which it may be named as well."""
    return response_id.removeprefix(RESPONSE_PREFIX)


def _unavailable(error: BusError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the store of responses cannot be reached: {error}", retry_after_s=DEFAULT_RETRY_S
    )

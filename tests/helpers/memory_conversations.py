"""Stored responses and conversations in memory, as the broker has them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from headrace.bus.objects import PartChanged, PartSize, StoredPart


@dataclass
class MemoryConversations:
    """Implements `headrace.bus.Conversations`, without the time that a part is kept."""

    parts: dict[tuple[str, str, str], StoredPart] = field(default_factory=dict)
    """By tenant, id and part."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def put_part(
        self, tenant: str, item_id: str, part: str, payload: bytes, *, kept_s: float
    ) -> None:
        self.parts.pop((tenant, item_id, part), None)
        self.parts[tenant, item_id, part] = StoredPart(payload, next(self._numbers))

    async def replace_part(
        self, tenant: str, item_id: str, part: str, payload: bytes, *, after: int, kept_s: float
    ) -> None:
        last = self.parts.get((tenant, item_id, part))
        if (0 if last is None else last.sequence) != after:
            raise PartChanged(f"{item_id} was stored by another process")
        await self.put_part(tenant, item_id, part, payload, kept_s=kept_s)

    async def get_part(self, tenant: str, item_id: str, part: str) -> StoredPart | None:
        return self.parts.get((tenant, item_id, part))

    async def delete_item(self, tenant: str, item_id: str) -> None:
        for key in [key for key in self.parts if key[:2] == (tenant, item_id)]:
            del self.parts[key]

    async def stored_parts(self, tenant: str) -> list[PartSize]:
        return [
            PartSize(key[1], part.sequence, len(part.payload))
            for key, part in self.parts.items()
            if key[0] == tenant
        ]

    async def keep_newest(self, tenant: str, parts: int) -> None:
        of_tenant = [key for key in self.parts if key[0] == tenant]
        for key in of_tenant[: max(0, len(of_tenant) - parts)]:
            del self.parts[key]

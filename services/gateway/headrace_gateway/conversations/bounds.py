"""Pure: how many of a tenant's stored parts are kept.

A tenant that may store 100 bytes in 3 parts, whose parts are, the oldest first, of 50, 30, 20, 40
and 10 bytes: the newest 3 have 70 bytes, so 3 are kept. With 60 bytes at most only 2 are: 40 and
10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.bus.objects import PartSize

CHECKED_AFTER_S = 30.0
_SHARE = 16


def newest_within(sizes: Sequence[PartSize], *, max_bytes: int, max_parts: int) -> int:
    """Return how many of the newest parts are within the bounds. `sizes`: the oldest first."""
    stored_bytes = kept = 0
    for part in reversed(sizes):
        stored_bytes += part.bytes
        if stored_bytes > max_bytes or kept == max_parts:
            break
        kept += 1
    return kept


@dataclass(slots=True)
class _Added:
    since_s: float
    bytes: int = 0
    parts: int = 0


@dataclass(slots=True)
class AddedParts:
    """What this gateway has stored of each tenant since it last checked the tenant's bounds."""

    max_bytes: int
    max_parts: int
    _tenants: dict[str, _Added] = field(default_factory=dict)

    def add(self, tenant: str, part_bytes: int, *, now_s: float) -> bool:
        """Count a part; return whether the bounds are to be checked now.

        They are after a sixteenth of either bound, and where the last check is long ago, because
        other gateways store for the tenant as well.
        """
        added = self._tenants.setdefault(tenant, _Added(now_s))
        added.bytes += part_bytes
        added.parts += 1
        is_due = (
            _SHARE * added.bytes >= self.max_bytes
            or _SHARE * added.parts >= self.max_parts
            or now_s - added.since_s >= CHECKED_AFTER_S
        )
        if is_due:
            del self._tenants[tenant]
        return is_due

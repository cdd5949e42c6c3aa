"""Whether the owner of a batch may still use the mesh."""

from __future__ import annotations

from headrace.auth.check.access import Access
from headrace.auth.scopes import ANY_MODEL
from headrace.clock import Clock
from headrace_control.base.batches import Owner


class Owners:
    """By the tables of tenants and keys, as they are watched."""

    def __init__(self, access: Access, clock: Clock) -> None:
        self._access, self._clock = access, clock

    def why_not(self, owner: Owner) -> str:
        """Return why an owner may not use the mesh now; empty if so, or if that is unknown."""
        tables = self._access.tables
        if not self._access.requires_keys or tables.not_ready_reason() is not None:
            return ""
        tenant = tables.tenant(owner.tenant)
        if tenant is None or tenant.disabled:
            return "The tenant of this batch is disabled."
        if not owner.key_id:
            return ""
        key = tables.key(owner.key_id)
        has_expired = key is not None and 0 < key.expire_ms <= self._clock.unix_s() * 1000
        if key is None or has_expired or key.tenant != owner.tenant:
            return "The API key that created this batch is not valid any more."
        has_models = ANY_MODEL in key.models or key.models.issuperset(owner.models)
        if not (has_models and key.scopes.issuperset(owner.scopes)):
            return "The API key that created this batch may do less than it could then."
        return ""

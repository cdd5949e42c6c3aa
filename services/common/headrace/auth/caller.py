"""The caller of a call: on whose behalf it is made, and what this caller may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.auth.scopes import ADMIN, ANY_MODEL, DEFAULT_TENANT, MESH_TENANT, SCOPES
from headrace.errors import InvalidRequest
from headrace.priorities import priority_name
from headrace.v1.common_pb2 import Priority

_ALL_SCOPES = frozenset(SCOPES)
_ALL_MODELS = frozenset({ANY_MODEL})


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made. There is one for each call.

    The defaults are those of a mesh that requires no keys: the caller may do everything.
    """

    tenant: str = DEFAULT_TENANT
    default_priority: Priority.ValueType = Priority.PRIORITY_STANDARD
    highest_priority: Priority.ValueType = Priority.PRIORITY_INTERACTIVE
    """Lower numbers are more urgent."""
    scopes: frozenset[str] = _ALL_SCOPES
    models: frozenset[str] = _ALL_MODELS
    """Names of models that the caller may use; `*` is all."""
    key_id: str = ""
    """Of the key of the call, or of the key that its session was opened with; empty: none."""
    person: str = ""
    """Id of the person; empty: a tenant's key, or nobody has signed in."""
    session_id: str = ""
    role: str = ""
    """Of the person in the tenant, by the session."""
    client: str = ""
    """The client's address, as Envoy or the connection proves it; empty: unknown."""
    anonymous: bool = False
    """No keys are required, and the caller gave none: it is whoever reaches the port."""
    tenant_create_ms: int = 0
    """When the tenant was created, in Unix time; 0: unknown."""

    @property
    def is_operator(self) -> bool:
        """Whether the caller administers the mesh and all tenants."""
        return ADMIN in self.scopes and (self.tenant == MESH_TENANT or self.anonymous)

    @property
    def actor(self) -> str:
        """The caller as audit events name it."""
        if self.person:
            return f"people/{self.person}"
        if self.key_id:
            return f"tenants/{self.tenant}/keys/{self.key_id}"
        return "anonymous"

    def may_administer(self, tenant: str) -> bool:
        return self.is_operator or (ADMIN in self.scopes and tenant == self.tenant)

    def may_use(self, *names: str) -> bool:
        """Return whether the caller may use the model that has these names."""
        return ANY_MODEL in self.models or not self.models.isdisjoint(names)

    def priority(self, requested: Priority.ValueType, *, field_name: str) -> Priority.ValueType:
        """Return the requested priority, or the caller's default if it is unset.

        Raises:
            InvalidRequest: the caller may not request a priority so urgent.
        """
        if not requested:
            return max(self.default_priority, self.highest_priority)
        if requested < self.highest_priority:
            fact = (
                f"{field_name} requests {priority_name(requested)}; tenant {self.tenant} may"
                f" request {priority_name(self.highest_priority)} at most"
            )
            raise InvalidRequest(fact, field=field_name)
        return requested

"""Which processes of a mesh may call which service inside it, by the certificates they prove."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from headrace.rpc.guards import guarded, service_of
from headrace.rpc.identity import peer_role

Roles = Mapping[str, frozenset[str]]

DELIVERY_ROLES: Roles = {
    "headrace.internal.v1.DeliveryService": frozenset({"worker"}),
    "headrace.internal.v1.AttachService": frozenset({"gateway"}),
    "headrace.internal.v1.RowService": frozenset({"control"}),
    # On behalf of the callers that it names.
    "headrace.v1.RequestService": frozenset({"web"}),
}
"""Of the port that a gateway has for the mesh."""
EDGE_ROLES: Roles = {"": frozenset({"envoy"})}
"""Of the ports behind Envoy, at which clients' calls come in."""


class RequireRole(grpc.aio.ServerInterceptor):
    """Refuses calls of peers whose certificate has no role that may call the service.

    Args:
        roles: by the full name of the service; that of "" holds for all others.
    """

    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        if found is None:
            return None
        service = service_of(handler_call_details)
        allowed = self._roles.get(service, self._roles.get("", frozenset()))

        async def check(context: Any) -> None:
            role = peer_role(context)
            if role not in allowed:
                fact = f"a {role} may not call {service}" if role else "the peer has no role here"
                who = " or ".join(sorted(allowed)) or "nothing"
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{fact}; {who} may call it")

        return guarded(found, check)

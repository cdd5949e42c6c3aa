"""Calls that another service of the mesh makes on behalf of a caller whom it has admitted itself.

Web does so: what a person has asked goes on once the person's session has ended. Only on ports for
the mesh, whose peers have proved their role.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headrace.auth.caller import Caller
from headrace.auth.check.edge import Context
from headrace.auth.check.interceptor import AccessInterceptor
from headrace.auth.tables import USUAL_PRIORITIES, AccessTables, Tenant
from headrace.errors import ControlUnavailable, PermissionDenied
from headrace.internal.v1.rows_pb2 import RowCaller
from headrace.v1.access_pb2 import Access

CALLER = "x-hr-caller-bin"
"""Metadata with a RowCaller."""
_PUBLIC = "/headrace.v1."
_RETRY_S = 1.0


def caller_metadata(caller: RowCaller) -> tuple[str, bytes]:
    """Return what a call on behalf of this caller has to bring."""
    return CALLER, caller.SerializeToString()


class ForwardedCallerInterceptor(AccessInterceptor):
    """Serves public methods on behalf of the caller that a call names; all others unchecked."""

    def __init__(self, tables: AccessTables, *, requires_keys: bool) -> None:
        super().__init__(ForwardedGate(tables, requires_keys=requires_keys))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        if not handler_call_details.method.startswith(_PUBLIC):
            return await continuation(handler_call_details)
        return await super().intercept_service(continuation, handler_call_details)


class ForwardedGate:
    """The `Gate` of such calls."""

    def __init__(self, tables: AccessTables, *, requires_keys: bool) -> None:
        self._tables, self._requires_keys = tables, requires_keys

    def admit(self, access: Access | None, headers: Mapping[str, str], context: Context) -> Caller:
        given = _named_caller(context)
        if access is None or access.scope not in given.scopes:
            raise PermissionDenied("the caller that this call names may not call this method")
        tenant = self._tables.tenant(given.tenant)
        if self._requires_keys:
            self._check_still_admitted(given, tenant)
        return Caller(
            given.tenant,
            *(tenant.priorities if tenant else USUAL_PRIORITIES),
            scopes=frozenset(given.scopes),
            models=frozenset(given.models),
            key_id=given.key_id,
            person=given.person,
            tenant_create_ms=tenant.row.create_ms if tenant else 0,
        )

    def _check_still_admitted(self, given: RowCaller, tenant: Tenant | None) -> None:
        """Refuse a caller whose tenant or key was taken away since web has admitted it."""
        if (problem := self._tables.not_ready_reason()) is not None:
            raise ControlUnavailable(problem, retry_after_s=_RETRY_S)
        if tenant is None or tenant.disabled:
            raise PermissionDenied(f"tenant {given.tenant} may not use the mesh")
        if given.key_id and self._tables.key(given.key_id) is None:
            raise PermissionDenied("the key that the caller has signed in with is not valid")


def _named_caller(context: Context) -> RowCaller:
    values = [value for name, value in context.invocation_metadata() or () if name == CALLER]
    try:
        if len(values) == 1 and isinstance(values[0], bytes):
            found = RowCaller.FromString(values[0])
            if found.tenant:
                return found
    except DecodeError:
        pass
    raise PermissionDenied(f"the call must name one caller in {CALLER}")

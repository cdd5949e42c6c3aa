"""UsageService: sums of usage, its rows, and whether they agree."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from typing import Protocol

from headrace.admin.v1 import usage_pb2 as pb
from headrace.admin.v1.usage_pb2_grpc import UsageServiceServicer
from headrace.bus.usage import UsageStream
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.tenancy import rules
from headrace_control.api.tenancy.fields import time_in
from headrace_control.api.usage.messages import groups_in, row_message, sum_message
from headrace_control.base.published_rows import milliseconds
from headrace_control.metering.reconciliation import Reconciliation
from headrace_control.operations.names import tenant_of_parent
from headrace_control.store import PageOptions, Store
from headrace_control.store.usage.sums import NO_END_MS, UsageFilter

_ALL = "tenants/-"


class UsageParts(Protocol):
    @property
    def bus(self) -> UsageStream: ...
    @property
    def store(self) -> Store: ...


class UsageService(UsageServiceServicer):
    def __init__(self, parts: UsageParts) -> None:
        self._sums, self._rows = parts.store.usage_sums, parts.store.usage_rows
        self._reconciliation = Reconciliation(
            parts.bus, parts.store.usage, parts.store.usage_checks, parts.store.statements
        )

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        columns, every_ms = groups_in(request.by)
        tenant, since_ms, until_ms = await self._which(request)
        which = UsageFilter(since_ms, until_ms, tenants=(tenant,) if tenant else ())
        found = await self._sums.sums(which, (*columns, "currency"), every_ms=every_ms)
        sums = (sum_message(each, has_time=bool(every_ms)) for each in found)
        return pb.GetUsageResponse(sums=sums, unpriced_models=await self._sums.unpriced(which))

    async def ListUsageRows(
        self, request: pb.ListUsageRowsRequest, context: Context
    ) -> pb.ListUsageRowsResponse:
        tenant, since_ms, until_ms = await self._which(request)
        page = await self._rows.page(
            tenant,
            since_ms=since_ms,
            until_ms=until_ms,
            options=PageOptions(request.page_size, request.page_token),
        )
        return pb.ListUsageRowsResponse(
            rows=map(row_message, page.items), next_page_token=page.next_page_token
        )

    async def _which(
        self, request: pb.GetUsageRequest | pb.ListUsageRowsRequest
    ) -> tuple[str, int, int]:
        """Return whose usage it is about, and of which time; an empty name: of all tenants."""
        tenant = _tenant(request.parent)
        since_ms, until_ms = _range(request)
        if not current_caller().is_operator:
            since_ms = max(since_ms, await self._sums.own_since_ms(tenant))
        return tenant, since_ms, until_ms

    async def ReconcileUsage(
        self, request: pb.ReconcileUsageRequest, context: Context
    ) -> pb.ReconcileUsageResponse:
        since_ms, until_ms = _range(request)
        found = await self._reconciliation.compare(since_ms, until_ms, repair=request.repair)
        return pb.ReconcileUsageResponse(
            rows=found.rows,
            records=found.records,
            differences=(
                pb.UsageDifference(
                    kind=each.kind, tenant=each.tenant, detail=each.detail, repaired=each.repaired
                )
                for each in found.differences
            ),
        )


def _tenant(parent: str) -> str:
    """Return the tenant of a parent that the caller may see; empty: all."""
    caller = current_caller()
    if parent in ("", _ALL):
        return "" if caller.is_operator else caller.tenant
    tenant = tenant_of_parent(parent)
    rules.require_tenant(caller, tenant)
    return tenant


def _range(
    request: pb.GetUsageRequest | pb.ListUsageRowsRequest | pb.ReconcileUsageRequest,
) -> tuple[int, int]:
    since_ms, until_ms = 0, NO_END_MS
    if request.HasField("since"):
        since_ms = milliseconds(time_in(request.since, "since"))
    if request.HasField("until"):
        until_ms = milliseconds(time_in(request.until, "until"))
    return since_ms, until_ms

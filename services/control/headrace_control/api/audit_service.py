"""AuditService: what was administered, listed and exported with its hashes."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Protocol

from google.api.httpbody_pb2 import HttpBody

from headrace.admin.v1 import audit_pb2 as pb
from headrace.admin.v1.audit_pb2_grpc import AuditServiceServicer
from headrace.errors import ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.base.audit_hash import event_fields
from headrace_control.base.records import AuditEvent
from headrace_control.operations.names import tenant_of_parent
from headrace_control.store import PageOptions, Store

CONTENT_TYPE = "application/x-ndjson"
CHUNK_BYTES = 64 * 1024


class AuditParts(Protocol):
    @property
    def store(self) -> Store: ...


class AuditService(AuditServiceServicer):
    def __init__(self, parts: AuditParts) -> None:
        self._audit = parts.store.audit

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Context
    ) -> pb.ListAuditEventsResponse:
        caller = current_caller()
        tenant = tenant_of_parent(request.parent) if request.parent else ""
        if tenant and not caller.may_administer(tenant):
            raise ResourceNotFound(f"tenant {tenant} not found", field="parent")
        if not tenant and not caller.is_operator:
            tenant = caller.tenant
        options = PageOptions(request.page_size, request.page_token)
        page = await self._audit.list(tenant=tenant, action=request.action, options=options)
        return pb.ListAuditEventsResponse(
            audit_events=map(_message, page.items), next_page_token=page.next_page_token
        )

    async def ExportAuditEvents(
        self, request: pb.ExportAuditEventsRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        lines: list[bytes] = []
        size = 0
        async for event in self._audit.export(request.after_sequence):
            line = f"{json.dumps(event_fields(event), ensure_ascii=False)}\n".encode()
            lines.append(line)
            size += len(line)
            if size >= CHUNK_BYTES:
                yield HttpBody(content_type=CONTENT_TYPE, data=b"".join(lines))
                lines, size = [], 0
        # Also of nothing: a response needs its type.
        yield HttpBody(content_type=CONTENT_TYPE, data=b"".join(lines))


def _message(event: AuditEvent) -> pb.AuditEvent:
    message = pb.AuditEvent(
        sequence=event.sequence,
        action=event.action,
        resource=event.resource,
        tenant=event.tenant,
        actor=event.actor,
        client=event.client,
        details=event.details,
        previous_hash=event.previous_hash,
        hash=event.hash,
    )
    message.time.FromDatetime(event.time)
    return message

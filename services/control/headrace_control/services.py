"""The services that control serves: how each is added to a server, made, and described."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from headrace.admin.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    people_pb2,
    people_pb2_grpc,
    prices_pb2,
    prices_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
    statements_pb2,
    statements_pb2_grpc,
    tenants_pb2,
    tenants_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
    webhooks_pb2,
    webhooks_pb2_grpc,
)
from headrace.v1 import (
    batches_pb2,
    batches_pb2_grpc,
    files_pb2,
    files_pb2_grpc,
    organization_pb2,
    organization_pb2_grpc,
)
from headrace_control.api.audit_service import AuditService
from headrace_control.api.batches.batch_service import BatchService
from headrace_control.api.billing.price_service import PriceService
from headrace_control.api.billing.statement_service import StatementService
from headrace_control.api.files.file_service import FileService
from headrace_control.api.operation_service import OperationService
from headrace_control.api.parts import Parts
from headrace_control.api.people.member_service import MemberService
from headrace_control.api.people.person_service import PersonService
from headrace_control.api.people.session_service import SessionService
from headrace_control.api.tenancy.key_service import KeyService
from headrace_control.api.tenancy.tenant_service import PlanService, TenantService
from headrace_control.api.usage.organization_service import OrganizationService
from headrace_control.api.usage.usage_service import UsageService
from headrace_control.api.webhooks.webhook_service import WebhookService


class Service(NamedTuple):
    add: Callable[[Any, grpc.aio.Server], None]
    make: Callable[[Parts], Any]
    descriptor: ServiceDescriptor


def _service(
    add: Callable[[Any, grpc.aio.Server], None], make: Callable[[Parts], Any], file: ModuleType
) -> Service:
    """Return a service that the proto file names as its class is named."""
    return Service(add, make, file.DESCRIPTOR.services_by_name[make.__name__])


SERVICES = (
    _service(audit_pb2_grpc.add_AuditServiceServicer_to_server, AuditService, audit_pb2),
    _service(batches_pb2_grpc.add_BatchServiceServicer_to_server, BatchService, batches_pb2),
    _service(files_pb2_grpc.add_FileServiceServicer_to_server, FileService, files_pb2),
    _service(keys_pb2_grpc.add_KeyServiceServicer_to_server, KeyService, keys_pb2),
    _service(people_pb2_grpc.add_MemberServiceServicer_to_server, MemberService, people_pb2),
    _service(
        operations_pb2_grpc.add_OperationServiceServicer_to_server, OperationService, operations_pb2
    ),
    _service(
        organization_pb2_grpc.add_OrganizationServiceServicer_to_server,
        OrganizationService,
        organization_pb2,
    ),
    _service(people_pb2_grpc.add_PersonServiceServicer_to_server, PersonService, people_pb2),
    _service(tenants_pb2_grpc.add_PlanServiceServicer_to_server, PlanService, tenants_pb2),
    _service(prices_pb2_grpc.add_PriceServiceServicer_to_server, PriceService, prices_pb2),
    _service(sessions_pb2_grpc.add_SessionServiceServicer_to_server, SessionService, sessions_pb2),
    _service(
        statements_pb2_grpc.add_StatementServiceServicer_to_server, StatementService, statements_pb2
    ),
    _service(tenants_pb2_grpc.add_TenantServiceServicer_to_server, TenantService, tenants_pb2),
    _service(usage_pb2_grpc.add_UsageServiceServicer_to_server, UsageService, usage_pb2),
    _service(webhooks_pb2_grpc.add_WebhookServiceServicer_to_server, WebhookService, webhooks_pb2),
)

"""TenantService and PlanService."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.admin.v1.tenants_pb2_grpc import PlanServiceServicer, TenantServiceServicer
from headrace.auth.caller import Caller
from headrace.auth.scopes import MESH_TENANT
from headrace.errors import FailedPrecondition, InvalidRequest, ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.resource_names import id_in
from headrace_control.api.tenancy import rules
from headrace_control.api.tenancy.masks import updated
from headrace_control.api.tenancy.tenant_messages import (
    PLAN_FIELDS,
    TENANT_FIELDS,
    plan_in,
    plan_message,
    tenant_in,
    tenant_message,
)
from headrace_control.base.names import checked_name
from headrace_control.base.records import Plan, Tenant
from headrace_control.store import PageOptions


class TenantService(TenantServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._tenants = parts.store.tenants

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.Tenant:
        tenant_id = checked_name(request.tenant_id, field="tenant_id")
        _check_same(request.tenant.name, f"tenants/{tenant_id}", "tenant.name", "tenant_id")
        tenant = tenant_in(request.tenant, Tenant(tenant_id))
        by = rules.actor(current_caller())
        return tenant_message(await self._tenants.create(tenant, by=by))

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.Tenant:
        tenant_id = id_in(request.name, "tenants/{tenant}")
        rules.require_tenant(current_caller(), tenant_id)
        return tenant_message(await self._tenants.get(tenant_id))

    async def ListTenants(
        self, request: pb.ListTenantsRequest, context: Context
    ) -> pb.ListTenantsResponse:
        caller = current_caller()
        if not caller.is_operator:
            own = await self._tenants.get(caller.tenant)
            return pb.ListTenantsResponse(tenants=[tenant_message(own)])
        page = await self._tenants.list(PageOptions(request.page_size, request.page_token))
        return pb.ListTenantsResponse(
            tenants=map(tenant_message, page.items), next_page_token=page.next_page_token
        )

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> pb.Tenant:
        tenant_id = id_in(request.tenant.name, "tenants/{tenant}", field="tenant.name")

        def edit(tenant: Tenant) -> Tenant:
            message = tenant_message(tenant)
            message = updated(message, request.tenant, request.update_mask, TENANT_FIELDS)
            return tenant_in(message, tenant)

        by = rules.actor(current_caller())
        return tenant_message(await self._tenants.update(tenant_id, edit, by=by))

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, context: Context) -> Empty:
        tenant_id = id_in(request.name, "tenants/{tenant}")
        if tenant_id == MESH_TENANT:
            raise FailedPrecondition(
                f"tenant {MESH_TENANT} cannot be deleted: its keys administer the mesh"
            )
        by = rules.actor(current_caller())
        await self._tenants.delete(tenant_id, force=request.force, by=by)
        return Empty()


class PlanService(PlanServiceServicer):
    """Administrators of one tenant see its plan; the others are unknown to them."""

    def __init__(self, parts: Parts) -> None:
        self._plans, self._tenants = parts.store.plans, parts.store.tenants

    async def CreatePlan(self, request: pb.CreatePlanRequest, context: Context) -> pb.Plan:
        plan_id = checked_name(request.plan_id, field="plan_id")
        _check_same(request.plan.name, f"plans/{plan_id}", "plan.name", "plan_id")
        plan = plan_in(request.plan, Plan(plan_id))
        by = rules.actor(current_caller())
        return plan_message(await self._plans.create(plan, by=by))

    async def GetPlan(self, request: pb.GetPlanRequest, context: Context) -> pb.Plan:
        plan_id, caller = id_in(request.name, "plans/{plan}"), current_caller()
        if not caller.is_operator and plan_id != await self._own_plan(caller):
            raise ResourceNotFound(f"plan {plan_id} not found")
        return plan_message(await self._plans.get(plan_id))

    async def ListPlans(
        self, request: pb.ListPlansRequest, context: Context
    ) -> pb.ListPlansResponse:
        caller = current_caller()
        if not caller.is_operator:
            own = await self._own_plan(caller)
            plans = [plan_message(await self._plans.get(own))] if own else []
            return pb.ListPlansResponse(plans=plans)
        page = await self._plans.list(PageOptions(request.page_size, request.page_token))
        return pb.ListPlansResponse(
            plans=map(plan_message, page.items), next_page_token=page.next_page_token
        )

    async def UpdatePlan(self, request: pb.UpdatePlanRequest, context: Context) -> pb.Plan:
        plan_id = id_in(request.plan.name, "plans/{plan}", field="plan.name")

        def edit(plan: Plan) -> Plan:
            message = updated(plan_message(plan), request.plan, request.update_mask, PLAN_FIELDS)
            return plan_in(message, plan)

        by = rules.actor(current_caller())
        return plan_message(await self._plans.update(plan_id, edit, by=by))

    async def DeletePlan(self, request: pb.DeletePlanRequest, context: Context) -> Empty:
        plan_id = id_in(request.name, "plans/{plan}")
        await self._plans.delete(plan_id, by=rules.actor(current_caller()))
        return Empty()

    async def _own_plan(self, caller: Caller) -> str:
        return (await self._tenants.get(caller.tenant)).plan


def _check_same(given: str, expected: str, field: str, other: str) -> None:
    if given not in ("", expected):
        raise InvalidRequest(
            f"{field} is {given[:120]!r} and {other} says {expected!r}; leave {field} empty",
            field=field,
        )

"""Tenants and plans as messages of the API, and back. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.auth.scopes import MESH_TENANT
from headrace.errors import FailedPrecondition, InvalidRequest
from headrace.v1.common_pb2 import Priority
from headrace_control.api.resource_names import id_in
from headrace_control.api.tenancy import fields
from headrace_control.base.records import Plan, Tenant

TENANT_FIELDS = frozenset(
    {
        *("display_name", "plan", "default_priority", "highest_priority"),
        *("weight", "networks", "disabled", "model_limits"),
        *("time_zone", "currency", "on_keeper_loss"),
        *("response_cache", "forbid_upstream_engines"),
    }
)
PLAN_FIELDS = frozenset({"display_name", "limits"})
MAX_WEIGHT = 1e6


def tenant_message(tenant: Tenant) -> pb.Tenant:
    return pb.Tenant(
        name=f"tenants/{tenant.tenant_id}",
        display_name=tenant.display_name,
        plan=f"plans/{tenant.plan}" if tenant.plan else "",
        default_priority=tenant.default_priority,
        highest_priority=tenant.highest_priority,
        weight=tenant.weight,
        networks=tenant.networks,
        disabled=tenant.disabled,
        model_limits=fields.model_limits_messages(tenant.model_limits),
        time_zone=tenant.time_zone,
        currency=tenant.currency,
        on_keeper_loss=(
            pb.KEEPER_LOSS_ALLOW if tenant.allow_on_keeper_loss else pb.KEEPER_LOSS_REFUSE
        ),
        response_cache=tenant.response_cache,
        forbid_upstream_engines=tenant.forbid_upstream_engines,
        create_time=fields.timestamp(tenant.create_time),
        update_time=fields.timestamp(tenant.update_time),
    )


def tenant_in(message: pb.Tenant, before: Tenant) -> Tenant:
    """Return the tenant of `before` with the message's fields.

    Raises:
        InvalidRequest: a field is out of its range.
        FailedPrecondition: it would disable the mesh's own tenant.
    """
    if message.disabled and before.tenant_id == MESH_TENANT:
        raise FailedPrecondition(
            f"tenant {MESH_TENANT} cannot be disabled: its keys administer the mesh",
            field="tenant.disabled",
        )
    return replace(
        before,
        display_name=fields.text(
            message.display_name, "tenant.display_name", longest=fields.MAX_DISPLAY_NAME
        ),
        plan=id_in(message.plan, "plans/{plan}", field="tenant.plan") if message.plan else "",
        default_priority=_priority(message.default_priority, "tenant.default_priority")
        or Priority.PRIORITY_STANDARD,
        highest_priority=_priority(message.highest_priority, "tenant.highest_priority")
        or Priority.PRIORITY_INTERACTIVE,
        weight=_weight(message.weight),
        networks=fields.networks(message.networks, "tenant.networks"),
        disabled=message.disabled,
        model_limits=fields.model_limits_in(message.model_limits, "tenant.model_limits"),
        time_zone=fields.time_zone(message.time_zone, "tenant.time_zone"),
        currency=fields.currency(message.currency, "tenant.currency"),
        allow_on_keeper_loss=_allows(message.on_keeper_loss),
        response_cache=message.response_cache,
        forbid_upstream_engines=message.forbid_upstream_engines,
    )


def plan_message(plan: Plan) -> pb.Plan:
    return pb.Plan(
        name=f"plans/{plan.plan_id}",
        display_name=plan.display_name,
        limits=fields.limits_message(plan.limits),
        create_time=fields.timestamp(plan.create_time),
        update_time=fields.timestamp(plan.update_time),
    )


def plan_in(message: pb.Plan, before: Plan) -> Plan:
    """Return the plan of `before` with the message's fields. Raises as `tenant_in`."""
    longest = fields.MAX_DISPLAY_NAME
    return replace(
        before,
        display_name=fields.text(message.display_name, "plan.display_name", longest=longest),
        limits=fields.limits_in(message.limits),
    )


def _priority(value: Priority.ValueType, field: str) -> Priority.ValueType:
    if value not in Priority.values():
        raise InvalidRequest(f"{field} is {value}, which is no priority", field=field)
    return value


def _allows(value: pb.KeeperLoss.ValueType) -> bool:
    if value not in pb.KeeperLoss.values():
        raise InvalidRequest(
            f"tenant.on_keeper_loss is {value}; it must be KEEPER_LOSS_REFUSE or KEEPER_LOSS_ALLOW",
            field="tenant.on_keeper_loss",
        )
    return value == pb.KEEPER_LOSS_ALLOW


def _weight(value: float) -> float:
    if not math.isfinite(value) or not 0 <= value <= MAX_WEIGHT:
        raise InvalidRequest(
            f"tenant.weight is {value:g}; it must be 0, which means 1, to {MAX_WEIGHT:g}",
            field="tenant.weight",
        )
    return value or 1.0

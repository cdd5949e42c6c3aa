"""TenantService and PlanService over gRPC, with real keys."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.bus.jetstream import connect
from headrace.bus.subjects import KEYS_TABLE, TENANTS_TABLE
from headrace.errors import (
    FailedPrecondition,
    InvalidApiKey,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceNotFound,
)
from headrace.internal.v1.access_pb2 import TenantRow
from headrace.testing.nats_server import NatsServer
from headrace.v1.common_pb2 import Priority
from helpers.control_api import ControlApi, refused


async def create(admin: ControlApi, tenant_id: str, /, **fields: object) -> pb.Tenant:
    tenant = pb.Tenant(**fields)  # type: ignore[arg-type]
    request = pb.CreateTenantRequest(tenant_id=tenant_id, tenant=tenant)
    answer: pb.Tenant = await admin.tenants.CreateTenant(request)
    return answer


async def update(admin: ControlApi, tenant: pb.Tenant, *paths: str) -> pb.Tenant:
    request = pb.UpdateTenantRequest(tenant=tenant, update_mask=FieldMask(paths=paths))
    answer: pb.Tenant = await admin.tenants.UpdateTenant(request)
    return answer


async def published(nats: NatsServer, tenant: str) -> TenantRow | None:
    bus = await connect(nats.url, name="watcher", replicas=None)
    data = (await bus.rows(TENANTS_TABLE)).get(tenant)
    await bus.close()
    return None if data is None else TenantRow.FromString(data)


async def test_a_tenant_has_the_limits_of_its_plan_at_once(
    admin: ControlApi, nats: NatsServer
) -> None:
    plan = pb.Plan(limits=pb.Limits(requests_per_minute=60, tokens_per_day=1_000_000))
    await admin.plans.CreatePlan(pb.CreatePlanRequest(plan_id="small", plan=plan))
    made = await create(admin, "acme", plan="plans/small", weight=2, display_name="Acme")
    assert made.name == "tenants/acme"
    assert made.default_priority == Priority.PRIORITY_STANDARD
    assert made.highest_priority == Priority.PRIORITY_INTERACTIVE
    row = await published(nats, "acme")
    assert row is not None
    assert (row.weight, row.limits.requests_per_minute) == (2, 60)
    plan = pb.Plan(name="plans/small", limits=pb.Limits(requests_per_minute=30))
    mask = FieldMask(paths=["limits.requests_per_minute"])
    changed = await admin.plans.UpdatePlan(pb.UpdatePlanRequest(plan=plan, update_mask=mask))
    assert changed.limits.tokens_per_day == 1_000_000
    row = await published(nats, "acme")
    assert row is not None
    assert row.limits.requests_per_minute == 30
    error = await refused(admin.plans.DeletePlan(pb.DeletePlanRequest(name="plans/small")))
    assert isinstance(error, FailedPrecondition)
    assert (await update(admin, pb.Tenant(name="tenants/acme"), "plan")).plan == ""
    await admin.plans.DeletePlan(pb.DeletePlanRequest(name="plans/small"))
    unknown = await refused(admin.plans.GetPlan(pb.GetPlanRequest(name="plans/small")))
    assert isinstance(unknown, ResourceNotFound)
    error = await refused(create(admin, "other", plan="plans/small"))
    assert isinstance(error, FailedPrecondition)


async def test_a_disabled_tenants_keys_are_refused_until_it_is_enabled(admin: ControlApi) -> None:
    made = await admin.create_key("acme", scopes=["admin:*"], models=[])
    acme = pb.Tenant(name="tenants/acme", disabled=True)
    await update(admin, acme)
    async with ControlApi(admin.port, made.secret) as own:
        get = pb.GetTenantRequest(name="tenants/acme")
        assert isinstance(await refused(own.tenants.GetTenant(get)), InvalidApiKey)
        acme.disabled = False
        assert (await update(admin, acme)).disabled  # an unset field, and no mask
        assert not (await update(admin, acme, "disabled")).disabled
        assert (await own.tenants.GetTenant(get)).name == "tenants/acme"


async def test_a_tenants_administrator_sees_its_own_and_changes_none(admin: ControlApi) -> None:
    await create(admin, "theirs")
    plan = pb.CreatePlanRequest(plan_id="small", plan=pb.Plan())
    await admin.plans.CreatePlan(plan)
    own = await admin.create_key("ours", scopes=["admin:*"], models=[])
    async with ControlApi(admin.port, own.secret) as ours:
        for tenant in ("theirs", "nobody"):
            error = await refused(
                ours.tenants.GetTenant(pb.GetTenantRequest(name=f"tenants/{tenant}"))
            )
            assert isinstance(error, ResourceNotFound)
            assert error.message == f"tenant {tenant} not found"
        listed = await ours.tenants.ListTenants(pb.ListTenantsRequest())
        assert [each.name for each in listed.tenants] == ["tenants/ours"]
        for call in (
            ours.tenants.CreateTenant(pb.CreateTenantRequest(tenant_id="more")),
            ours.tenants.UpdateTenant(pb.UpdateTenantRequest(tenant=listed.tenants[0])),
            ours.tenants.DeleteTenant(pb.DeleteTenantRequest(name="tenants/ours")),
            ours.plans.CreatePlan(plan),
        ):
            assert isinstance(await refused(call), PermissionDenied)
        get = pb.GetPlanRequest(name="plans/small")
        assert isinstance(await refused(ours.plans.GetPlan(get)), ResourceNotFound)
        assert not (await ours.plans.ListPlans(pb.ListPlansRequest())).plans
        await update(admin, pb.Tenant(name="tenants/ours", plan="plans/small"))
        assert (await ours.plans.GetPlan(get)).name == "plans/small"
        assert len((await ours.plans.ListPlans(pb.ListPlansRequest())).plans) == 1


async def test_a_tenant_is_deleted_with_its_keys_if_that_is_meant(
    admin: ControlApi, nats: NatsServer
) -> None:
    made = await admin.create_key("acme")
    delete = pb.DeleteTenantRequest(name="tenants/acme")
    assert isinstance(await refused(admin.tenants.DeleteTenant(delete)), FailedPrecondition)
    delete.force = True
    await admin.tenants.DeleteTenant(delete)
    assert await published(nats, "acme") is None
    bus = await connect(nats.url, name="watcher", replicas=None)
    assert made.key.name.rpartition("/")[2] not in await bus.rows(KEYS_TABLE)
    await bus.close()
    assert isinstance(await refused(admin.tenants.DeleteTenant(delete)), ResourceNotFound)


async def test_the_meshs_own_tenant_stays(admin: ControlApi) -> None:
    own = pb.Tenant(name="tenants/headrace", disabled=True)
    assert isinstance(await refused(update(admin, own)), FailedPrecondition)
    delete = pb.DeleteTenantRequest(name="tenants/headrace", force=True)
    assert isinstance(await refused(admin.tenants.DeleteTenant(delete)), FailedPrecondition)


async def test_what_a_tenant_cannot_be_is_said_with_the_field(admin: ControlApi) -> None:
    for name, fields, field in (
        ("", {}, "tenant_id"),
        ("-", {}, "tenant_id"),
        ("a/b", {}, "tenant_id"),
        ("x" * 65, {}, "tenant_id"),
        ("acme", {"name": "tenants/other"}, "tenant.name"),
        ("acme", {"weight": -1}, "tenant.weight"),
        ("acme", {"weight": float("nan")}, "tenant.weight"),
        ("acme", {"plan": "small"}, "tenant.plan"),
        ("acme", {"default_priority": 9}, "tenant.default_priority"),
        ("acme", {"networks": ["10.0.0.0/33"]}, "tenant.networks[0]"),
        ("acme", {"display_name": "a\nb"}, "tenant.display_name"),
        ("acme", {"time_zone": "Mars/Olympus"}, "tenant.time_zone"),
        ("acme", {"time_zone": "localtime"}, "tenant.time_zone"),
        ("acme", {"currency": "chf"}, "tenant.currency"),
        ("acme", {"on_keeper_loss": 9}, "tenant.on_keeper_loss"),
        ("acme", {"model_limits": 2 * [pb.ModelLimits(model="a")]}, "tenant.model_limits"),
        ("acme", {"model_limits": [pb.ModelLimits()]}, "tenant.model_limits[0]"),
    ):
        error = await refused(create(admin, name, **fields))
        assert (type(error), error.field) == (InvalidRequest, field), (name, fields)
    await create(admin, "acme")
    assert isinstance(await refused(create(admin, "acme")), ResourceExists)
    pages = await admin.tenants.ListTenants(pb.ListTenantsRequest(page_size=2))
    assert len(pages.tenants) == 2
    rest = pb.ListTenantsRequest(page_size=2, page_token=pages.next_page_token)
    assert len((await admin.tenants.ListTenants(rest)).tenants) == 1
    bad = pb.ListTenantsRequest(page_size=-1)
    assert (await refused(admin.tenants.ListTenants(bad))).field == "page_size"

"""Usage of a tenant that was deleted, when another one has its name."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from headrace.admin.v1 import tenants_pb2
from headrace.admin.v1 import usage_pb2 as pb
from headrace.internal.v1.own_usage_pb2 import OwnUsageRequest, OwnUsageResponse
from headrace_control.metering.own_usage import OwnUsage
from headrace_control.store import Store
from helpers.control_api import ControlApi
from helpers.control_edge import control_edge
from helpers.usage_records import START_MS, usage_message

ACME = "tenants/acme"


async def create_and_use(admin: ControlApi, database_url: str) -> None:
    """Have a tenant, with a request of long ago, deleted, and its name given to another one."""
    create = tenants_pb2.CreateTenantRequest(tenant_id="acme", tenant=tenants_pb2.Tenant())
    await admin.tenants.CreateTenant(create)
    store = await Store.open(database_url)
    await store.usage.record([usage_message(1, person="ann", arrival_ms=0)])
    await store.close()
    await admin.tenants.DeleteTenant(tenants_pb2.DeleteTenantRequest(name=ACME))
    await admin.tenants.CreateTenant(create)


async def test_it_is_shown_to_operators_alone(tmp_path: Path) -> None:
    async with control_edge(tmp_path) as edge, edge.admin() as admin:
        await create_and_use(admin, edge.database_url)
        sums, rows = pb.GetUsageRequest(parent=ACME), pb.ListUsageRowsRequest(parent=ACME)
        assert len((await admin.usage.GetUsage(sums)).sums) == 1
        assert len((await admin.usage.ListUsageRows(rows)).rows) == 1
        secret = (await admin.create_key("acme", scopes=["usage:read"])).secret
        async with ControlApi(edge.port, secret) as own:
            assert not (await own.usage.GetUsage(sums)).sums
            assert not (await own.usage.ListUsageRows(rows)).rows
        day_s = START_MS // 1000 // 86_400 * 86_400
        path = f"{edge.url}/v1/organization/usage/completions?start_time={day_s}"
        for key, shown in ((edge.admin_key, 1), (secret, 0)):
            async with httpx.AsyncClient(trust_env=False) as http:
                answer = await http.get(path, headers={"authorization": f"Bearer {key}"})
            (first, *_) = json.loads(answer.content)["data"]
            assert len(first["results"]) == shown
        store = await Store.open(edge.database_url)
        asked = OwnUsageRequest(tenant="acme", since_ms=START_MS).SerializeToString()
        answer_ = await OwnUsage(store.usage_sums).answer(asked)
        await store.close()
        assert OwnUsageResponse.FromString(answer_).requests == 0

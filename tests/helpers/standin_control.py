"""Control without a database, for tests of Envoy."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from headrace.admin.v1 import tenants_pb2, tenants_pb2_grpc
from headrace.rpc.server import add_health_and_reflection, bind, make_server, set_serving

SERVICES = ("headrace.admin.v1.TenantService",)


class Tenants(tenants_pb2_grpc.TenantServiceServicer):
    """Has every tenant that it is asked for, but `nobody`."""

    async def GetTenant(
        self, request: tenants_pb2.GetTenantRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> tenants_pb2.Tenant:
        if request.name == "tenants/nobody":
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return tenants_pb2.Tenant(name=request.name)


@asynccontextmanager
async def standin_control() -> AsyncIterator[int]:
    """Yield its port."""
    server = make_server()
    tenants_pb2_grpc.add_TenantServiceServicer_to_server(
        Tenants(),  # type: ignore[abstract]
        server,
    )
    health = add_health_and_reflection(server, SERVICES)
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    await set_serving(health, SERVICES, serving=True)
    try:
        yield port
    finally:
        await server.stop(grace=0)

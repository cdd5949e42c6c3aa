"""Calls of a control process's API, with a key, as clients make them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc

from headrace.admin.v1 import (
    keys_pb2,
    keys_pb2_grpc,
    people_pb2_grpc,
    prices_pb2_grpc,
    sessions_pb2_grpc,
    statements_pb2_grpc,
    tenants_pb2_grpc,
    usage_pb2_grpc,
    webhooks_pb2_grpc,
)
from headrace.cli.console.admin_api import key_interceptors
from headrace.errors import HeadraceError
from headrace.rpc.channels import aio_channel
from headrace.rpc.status import from_rpc_error

T = TypeVar("T")
ALL_USES = ("generate", "embed", "models:read", "usage:read")


class ControlApi:
    """Stubs whose calls have this key; use it as a context manager that closes the channel."""

    def __init__(self, port: int, key: str = "") -> None:
        self.port, self._key = port, key

    async def __aenter__(self) -> ControlApi:
        interceptors = key_interceptors(self._key or None)
        self._channel = aio_channel(f"127.0.0.1:{self.port}", interceptors=interceptors)
        self.keys: Any = keys_pb2_grpc.KeyServiceStub(self._channel)
        self.tenants: Any = tenants_pb2_grpc.TenantServiceStub(self._channel)
        self.plans: Any = tenants_pb2_grpc.PlanServiceStub(self._channel)
        self.prices: Any = prices_pb2_grpc.PriceServiceStub(self._channel)
        self.statements: Any = statements_pb2_grpc.StatementServiceStub(self._channel)
        self.people: Any = people_pb2_grpc.PersonServiceStub(self._channel)
        self.members: Any = people_pb2_grpc.MemberServiceStub(self._channel)
        self.sessions: Any = sessions_pb2_grpc.SessionServiceStub(self._channel)
        self.usage: Any = usage_pb2_grpc.UsageServiceStub(self._channel)
        self.webhooks: Any = webhooks_pb2_grpc.WebhookServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def create_key(self, tenant: str, **fields: Any) -> keys_pb2.CreateKeyResponse:
        """Create a key that may generate with every model, but for what `fields` say."""
        chosen: dict[str, Any] = {"scopes": ALL_USES, "models": ["*"]} | fields
        request = keys_pb2.CreateKeyRequest(parent=f"tenants/{tenant}", key=keys_pb2.Key(**chosen))
        answer: keys_pb2.CreateKeyResponse = await self.keys.CreateKey(request)
        return answer


async def refused(call: Awaitable[T]) -> HeadraceError:
    """Return the error that a call ends with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError(f"it was answered: {answer}")

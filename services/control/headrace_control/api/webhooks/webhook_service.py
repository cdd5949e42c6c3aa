"""WebhookService: endpoints of webhooks, whose secrets are shown once, and their deliveries."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from typing import Protocol

from google.protobuf.empty_pb2 import Empty

from headrace.admin.v1 import webhooks_pb2 as pb
from headrace.admin.v1.webhooks_pb2_grpc import WebhookServiceServicer
from headrace.auth.caller import Caller
from headrace.auth.networks import parse_networks
from headrace.credentials.secret_files import SecretFile
from headrace.errors import FailedPrecondition, ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.resource_names import id_in, ids_in
from headrace_control.api.tenancy import rules
from headrace_control.api.tenancy.key_service import grace_in
from headrace_control.api.tenancy.masks import updated
from headrace_control.api.webhooks.messages import (
    DELIVERY_NAME,
    ENDPOINT_FIELDS,
    ENDPOINT_NAME,
    delivery_message,
    endpoint_in,
    endpoint_message,
    state_in,
)
from headrace_control.base.names import checked_name
from headrace_control.base.settings import ControlSettings
from headrace_control.base.webhooks import WebhookEndpoint
from headrace_control.store import PageOptions, Store
from headrace_control.webhooks.sealing import SecretSealer, new_secret


class WebhookParts(Protocol):
    """What the service uses of `Parts`."""

    @property
    def settings(self) -> ControlSettings: ...

    @property
    def store(self) -> Store: ...

    @property
    def webhook_keys(self) -> SecretFile[SecretSealer] | None: ...


class WebhookService(WebhookServiceServicer):
    def __init__(self, parts: WebhookParts) -> None:
        self._store, self._keys = parts.store, parts.webhook_keys
        self._endpoints = parts.store.webhook_endpoints
        self._deliveries = parts.store.webhook_deliveries
        self._networks = parse_networks(parts.settings.webhook_networks)

    async def CreateWebhookEndpoint(
        self, request: pb.CreateWebhookEndpointRequest, context: Context
    ) -> pb.CreateWebhookEndpointResponse:
        caller = current_caller()
        tenant = _tenant_in(caller, request.parent)
        checked_name(tenant, field="parent")
        endpoint = endpoint_in(
            request.webhook_endpoint, WebhookEndpoint("", tenant), self._networks
        )
        secret = new_secret()
        made = await self._endpoints.create(
            endpoint,
            self._sealer().seal(secret),
            make_tenant=caller.is_operator,
            by=rules.actor(caller),
        )
        return pb.CreateWebhookEndpointResponse(webhook_endpoint=self._message(made), secret=secret)

    async def GetWebhookEndpoint(
        self, request: pb.GetWebhookEndpointRequest, context: Context
    ) -> pb.WebhookEndpoint:
        return self._message(await self._endpoints.get(*(await self._ids_in(request.name))))

    async def ListWebhookEndpoints(
        self, request: pb.ListWebhookEndpointsRequest, context: Context
    ) -> pb.ListWebhookEndpointsResponse:
        tenant, caller = id_in(request.parent, "tenants/{tenant}", field="parent"), current_caller()
        if tenant == rules.EVERY_TENANT:
            tenant = "" if caller.is_operator else caller.tenant
        else:
            rules.require_tenant(caller, tenant)
        options = PageOptions(request.page_size, request.page_token)
        page = await self._endpoints.list(tenant, options=options)
        return pb.ListWebhookEndpointsResponse(
            webhook_endpoints=map(self._message, page.items), next_page_token=page.next_page_token
        )

    async def UpdateWebhookEndpoint(
        self, request: pb.UpdateWebhookEndpointRequest, context: Context
    ) -> pb.WebhookEndpoint:
        given = request.webhook_endpoint
        tenant, endpoint_id = await self._ids_in(given.name, field="webhook_endpoint.name")

        def edit(endpoint: WebhookEndpoint) -> WebhookEndpoint:
            message = updated(self._message(endpoint), given, request.update_mask, ENDPOINT_FIELDS)
            return endpoint_in(message, endpoint, self._networks)

        by = rules.actor(current_caller())
        return self._message(await self._endpoints.update(tenant, endpoint_id, edit, by=by))

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Context
    ) -> pb.CreateWebhookEndpointResponse:
        tenant, endpoint_id = await self._ids_in(request.name)
        grace = grace_in(request.grace if request.HasField("grace") else None)
        secret = new_secret()
        rotated = await self._endpoints.rotate(
            tenant,
            endpoint_id,
            self._sealer().seal(secret),
            old_ends=self._store.now() + grace,
            by=rules.actor(current_caller()),
        )
        return pb.CreateWebhookEndpointResponse(
            webhook_endpoint=self._message(rotated), secret=secret
        )

    async def DeleteWebhookEndpoint(
        self, request: pb.DeleteWebhookEndpointRequest, context: Context
    ) -> Empty:
        tenant, endpoint_id = await self._ids_in(request.name)
        await self._endpoints.delete(tenant, endpoint_id, by=rules.actor(current_caller()))
        return Empty()

    async def TestWebhookEndpoint(
        self, request: pb.TestWebhookEndpointRequest, context: Context
    ) -> pb.WebhookDelivery:
        tenant, endpoint_id = await self._ids_in(request.name)
        by = rules.actor(current_caller())
        return delivery_message(tenant, await self._deliveries.test(tenant, endpoint_id, by=by))

    async def GetWebhookDelivery(
        self, request: pb.GetWebhookDeliveryRequest, context: Context
    ) -> pb.WebhookDelivery:
        tenant, endpoint_id, event_id = await self._delivery_ids_in(request.name)
        return delivery_message(tenant, await self._deliveries.get(tenant, endpoint_id, event_id))

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: Context
    ) -> pb.ListWebhookDeliveriesResponse:
        tenant, endpoint_id = await self._ids_in(request.parent, field="parent")
        page = await self._deliveries.list(
            tenant,
            endpoint_id,
            state=state_in(request.state),
            options=PageOptions(request.page_size, request.page_token),
        )
        return pb.ListWebhookDeliveriesResponse(
            webhook_deliveries=(delivery_message(tenant, each) for each in page.items),
            next_page_token=page.next_page_token,
        )

    async def ResendWebhookDelivery(
        self, request: pb.ResendWebhookDeliveryRequest, context: Context
    ) -> pb.WebhookDelivery:
        tenant, endpoint_id, event_id = await self._delivery_ids_in(request.name)
        by = rules.actor(current_caller())
        resent = await self._deliveries.resend(tenant, endpoint_id, event_id, by=by)
        return delivery_message(tenant, resent)

    async def _ids_in(self, name: str, *, field: str = "name") -> tuple[str, str]:
        """Return tenant and id of the endpoint of this name; its tenant may be `-`.

        Raises:
            InvalidRequest: it is no name of one.
            ResourceNotFound: there is none that the caller may see.
        """
        tenant, endpoint_id = ids_in(name, ENDPOINT_NAME, field=field)
        return await self._seen(tenant, endpoint_id), endpoint_id

    async def _delivery_ids_in(self, name: str) -> tuple[str, str, str]:
        tenant, endpoint_id, event_id = ids_in(name, DELIVERY_NAME)
        return await self._seen(tenant, endpoint_id), endpoint_id, event_id

    async def _seen(self, tenant: str, endpoint_id: str) -> str:
        found = await self._endpoints.tenant_of(endpoint_id)
        is_named = tenant in (rules.EVERY_TENANT, found)
        if not (found and is_named and current_caller().may_administer(found)):
            raise ResourceNotFound(f"webhook endpoint {endpoint_id} not found")
        return found

    def _sealer(self) -> SecretSealer:
        if self._keys is None:
            raise FailedPrecondition(
                "there are no webhooks: control has no webhook_keys_file; `headrace up` makes one,"
                " elsewhere set HEADRACE_CONTROL_WEBHOOK_KEYS_FILE"
            )
        return self._keys.value()

    def _message(self, endpoint: WebhookEndpoint) -> pb.WebhookEndpoint:
        return endpoint_message(endpoint, now=self._store.now())


def _tenant_in(caller: Caller, parent: str) -> str:
    tenant = id_in(parent, "tenants/{tenant}", field="parent")
    rules.require_tenant(caller, tenant)
    return tenant

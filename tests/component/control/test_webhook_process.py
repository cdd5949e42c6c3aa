"""Webhooks of a control process: its API, its commands, and its death between send and record."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from google.protobuf.field_mask_pb2 import FieldMask
from standardwebhooks import Webhook

from headrace.admin.v1 import webhooks_pb2 as pb
from headrace.errors import FailedPrecondition, InvalidRequest, ResourceNotFound
from headrace.testing.nats_server import NatsServer
from helpers.command import headrace
from helpers.control_api import ControlApi, refused
from helpers.control_process import control_process, serving, write_peppers
from helpers.eventually import eventually
from helpers.http_server import HttpServer, answer, http_server


def webhook_settings(folder: Path) -> dict[str, Any]:
    keys = folder / "webhooks"
    if not keys.exists():
        keys.touch(mode=0o600)
        keys.write_bytes(Fernet.generate_key())
    return {"webhook_keys_file": keys, "webhook_networks": '["127.0.0.0/8"]'}


def files_of(folder: Path) -> bytes:
    """Return all that a process has written there, its database and log among it."""
    return b"".join(path.read_bytes() for path in folder.glob("*") if path.is_file())


@pytest.fixture
async def api(nats: NatsServer, tmp_path: Path) -> AsyncIterator[ControlApi]:
    async with control_process(tmp_path, nats.url, **webhook_settings(tmp_path)) as running:
        await serving(running)
        async with ControlApi(running.ports["grpc"]) as opened:
            yield opened


async def create(
    api: ControlApi, server: HttpServer, tenant: str = "acme", **fields: object
) -> pb.CreateWebhookEndpointResponse:
    url = f"http://127.0.0.1:{server.port}/hooks"
    endpoint = pb.WebhookEndpoint(url=url, **fields)  # type: ignore[arg-type]
    request = pb.CreateWebhookEndpointRequest(parent=f"tenants/{tenant}", webhook_endpoint=endpoint)
    made: pb.CreateWebhookEndpointResponse = await api.webhooks.CreateWebhookEndpoint(request)
    return made


async def test_an_endpoint_is_made_tested_changed_and_deleted(api: ControlApi) -> None:
    async with http_server(answer(200)) as server:
        made = await create(api, server, event_types=["response.completed", "batch.failed"])
        name = made.webhook_endpoint.name
        assert made.secret.startswith("whsec_")
        request = pb.TestWebhookEndpointRequest(name=name)
        sent = await api.webhooks.TestWebhookEndpoint(request)
        assert sent.event_type == "webhook.test"

        async def is_delivered() -> bool:
            request = pb.GetWebhookDeliveryRequest(name=sent.name)
            found = await api.webhooks.GetWebhookDelivery(request)
            return bool(found.state == pb.WebhookDelivery.STATE_DELIVERED)

        await eventually(is_delivered)
        assert Webhook(made.secret).verify(server.asked[0].body, server.asked[0].headers)
    changed = pb.WebhookEndpoint(name=name, disabled=True)
    mask = FieldMask(paths=["disabled"])
    updated = await api.webhooks.UpdateWebhookEndpoint(
        pb.UpdateWebhookEndpointRequest(webhook_endpoint=changed, update_mask=mask)
    )
    assert updated.disabled_reason == "an administrator has disabled it"
    assert list(updated.event_types) == ["batch.failed", "response.completed"]
    error = await refused(
        api.webhooks.TestWebhookEndpoint(pb.TestWebhookEndpointRequest(name=name))
    )
    assert isinstance(error, FailedPrecondition)
    await api.webhooks.DeleteWebhookEndpoint(pb.DeleteWebhookEndpointRequest(name=name))
    error = await refused(api.webhooks.GetWebhookEndpoint(pb.GetWebhookEndpointRequest(name=name)))
    assert isinstance(error, ResourceNotFound)


async def test_what_cannot_be_an_endpoint_is_refused(api: ControlApi) -> None:
    cases: tuple[dict[str, Any], ...] = (
        {"url": "https://169.254.169.254/"},
        {"url": "http://example.com/"},
        {"url": "https://example.com/", "event_types": ["batch.compleat"]},
        {"url": "https://example.com/", "event_types": ["webhook.test"]},
    )
    for fields in cases:
        request = pb.CreateWebhookEndpointRequest(
            parent="tenants/acme",
            webhook_endpoint=pb.WebhookEndpoint(**fields),
        )
        error = await refused(api.webhooks.CreateWebhookEndpoint(request))
        assert isinstance(error, InvalidRequest), fields


async def test_secrets_are_neither_in_the_database_nor_in_the_log(
    api: ControlApi, tmp_path: Path
) -> None:
    async with http_server(answer(200)) as server:
        made = await create(api, server)
        request = pb.RotateWebhookSecretRequest(name=made.webhook_endpoint.name)
        rotated = await api.webhooks.RotateWebhookSecret(request)
        assert rotated.secret != made.secret
        assert rotated.webhook_endpoint.HasField("old_secret_expire_time")
        await api.webhooks.TestWebhookEndpoint(
            pb.TestWebhookEndpointRequest(name=made.webhook_endpoint.name)
        )

        async def is_received() -> bool:
            return bool(server.asked)

        await eventually(is_received)
        for secret in (made.secret, rotated.secret):
            assert Webhook(secret).verify(server.asked[0].body, server.asked[0].headers)
    written = files_of(tmp_path)
    assert b"whsec_" not in written
    for secret in (made.secret, rotated.secret):
        assert secret.removeprefix("whsec_").encode() not in written


async def test_a_death_between_send_and_record_sends_again_with_the_same_id(
    nats: NatsServer, tmp_path: Path
) -> None:
    settings = webhook_settings(tmp_path)
    async with http_server(None, answer(200)) as server:
        async with control_process(tmp_path, nats.url, **settings) as running:
            await serving(running)
            async with ControlApi(running.ports["grpc"]) as api:
                made = await create(api, server)
                await api.webhooks.TestWebhookEndpoint(
                    pb.TestWebhookEndpointRequest(name=made.webhook_endpoint.name)
                )

            async def is_sent() -> bool:
                return bool(server.asked)

            await eventually(is_sent)
            running.process.kill()
        async with control_process(tmp_path, nats.url, name="second", **settings) as running:

            async def is_sent_again() -> bool:
                return len(server.asked) == 2

            await eventually(is_sent_again, within_s=20)
    first, second = server.asked
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert Webhook(made.secret).verify(second.body, second.headers)


async def test_commands(nats: NatsServer, tmp_path: Path) -> None:
    async with (
        control_process(
            tmp_path,
            nats.url,
            auth="keys",
            peppers_file=write_peppers(tmp_path / "peppers", "a"),
            bootstrap_keys_dir=tmp_path,
            **webhook_settings(tmp_path),
        ) as running,
        http_server(answer(200), answer(500), answer(200)) as server,
    ):
        await serving(running)
        key = (tmp_path / "admin.key").read_text().strip()
        options = ("--url", f"http://127.0.0.1:{running.ports['grpc']}", "--api-key", key)

        async def run(*arguments: str) -> str:
            ran = await headrace("webhook", *arguments, *options, folder=tmp_path)
            assert ran.status == 0, ran.err
            return ran.out

        url = f"http://127.0.0.1:{server.port}/"
        made = json.loads(await run("create", url, "--event", "batch.completed", "--json"))
        webhook = made["id"]
        assert made["secret"].startswith("whsec_")
        assert json.loads(await run("test", webhook, "--json"))["state"] == "delivered"
        failed = await headrace("webhook", "test", webhook, *options, folder=tmp_path)
        assert failed.status == 1
        assert "any 2xx is a delivery" in failed.out
        (waits,) = json.loads(await run("deliveries", webhook, "--state", "pending", "--json"))
        assert await run("resend", webhook, waits["event"]) == "1 delivery is sent again\n"

        async def is_delivered() -> bool:
            listed = json.loads(await run("deliveries", webhook, "--json"))
            return [each["state"] for each in listed] == ["delivered"] * 2

        await eventually(is_delivered, within_s=20)
        assert server.asked[1].headers["webhook-id"] == server.asked[2].headers["webhook-id"]
        assert (await run("rotate", webhook, "--grace", "0s")).startswith("whsec_")
        assert webhook in await run("list")
        assert url in await run("show", webhook)
        assert "deleted" in await run("delete", webhook)
        assert "no webhook" in await run("list")


async def test_without_a_file_of_keys_there_are_no_webhooks(
    admin: ControlApi,
) -> None:
    endpoint = pb.WebhookEndpoint(url="https://example.com/")
    request = pb.CreateWebhookEndpointRequest(parent="tenants/a", webhook_endpoint=endpoint)
    error = await refused(admin.webhooks.CreateWebhookEndpoint(request))
    assert "WEBHOOK_KEYS_FILE" in str(error)

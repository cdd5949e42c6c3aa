"""KeyService over gRPC, with real keys: who may make, see, rotate and revoke which."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import keys_pb2 as pb
from headrace.admin.v1 import tenants_pb2
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.subjects import KEYS_TABLE, TENANTS_TABLE
from headrace.errors import (
    FailedPrecondition,
    InvalidApiKey,
    InvalidRequest,
    PermissionDenied,
    ResourceNotFound,
)
from headrace.internal.v1.access_pb2 import KeyRow
from headrace.testing.nats_server import NatsServer
from helpers.control_api import ControlApi, refused


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[JetStreamBus]:
    connected = await connect(nats.url, name="watcher", replicas=None)
    yield connected
    await connected.close()


async def row(bus: JetStreamBus, name: str) -> KeyRow | None:
    data = (await bus.rows(KEYS_TABLE)).get(name.rpartition("/")[2])
    return None if data is None else KeyRow.FromString(data)


async def test_a_key_is_in_force_when_it_is_answered_and_gone_when_it_is_revoked(
    admin: ControlApi, bus: JetStreamBus
) -> None:
    made = await admin.create_key(
        "acme.eu",
        display_name="Search",
        networks=["127.0.0.0/8", "10.1.0.0/16"],
        labels={"team": "search"},
        limits=tenants_pb2.Limits(requests_per_minute=60),
    )
    published = await row(bus, made.key.name)
    assert published is not None
    assert (published.tenant, list(published.models)) == ("acme.eu", ["*"])
    assert published.limits.requests_per_minute == 60
    assert "acme=eu" in await bus.rows(TENANTS_TABLE)
    assert made.secret.startswith("hr_")
    assert made.key.redacted == f"{made.secret[:15]}...{made.secret[-3:]}"
    seen = await admin.keys.GetKey(pb.GetKeyRequest(name=made.key.name))
    assert made.secret[15:] not in str(seen)
    assert seen == made.key
    async with ControlApi(admin.port, made.secret) as own:
        assert (await own.keys.GetKey(pb.GetKeyRequest(name=made.key.name))).name == made.key.name
        revoked = await admin.keys.RevokeKey(pb.RevokeKeyRequest(name=made.key.name))
        assert revoked.HasField("revoke_time")
        assert await row(bus, made.key.name) is None
        assert isinstance(
            await refused(own.keys.GetKey(pb.GetKeyRequest(name=made.key.name))), InvalidApiKey
        )
    again = await admin.keys.RevokeKey(pb.RevokeKeyRequest(name=made.key.name))
    assert again == revoked


async def test_a_tenant_sees_no_other_and_an_unknown_one_reads_the_same(admin: ControlApi) -> None:
    foreign = await admin.create_key("theirs")
    own = await admin.create_key("ours", scopes=["admin:*"], models=[])
    async with ControlApi(admin.port, own.secret) as ours:
        for tenant in ("theirs", "nobody"):
            error = await refused(ours.create_key(tenant))
            assert isinstance(error, ResourceNotFound)
            assert error.message == f"tenant {tenant} not found"
            error = await refused(
                ours.keys.ListKeys(pb.ListKeysRequest(parent=f"tenants/{tenant}"))
            )
            assert error.message == f"tenant {tenant} not found"
        for verb, request in (
            ("GetKey", pb.GetKeyRequest),
            ("RotateKey", pb.RotateKeyRequest),
            ("RevokeKey", pb.RevokeKeyRequest),
        ):
            key_id = foreign.key.name.rpartition("/")[2]
            for name in (
                foreign.key.name,
                f"tenants/-/keys/{key_id}",
                f"tenants/ours/keys/{key_id}",
            ):
                error = await refused(getattr(ours.keys, verb)(request(name=name)))
                assert isinstance(error, ResourceNotFound)
                assert error.message == f"key {key_id} not found"
        listed = await ours.keys.ListKeys(pb.ListKeysRequest(parent="tenants/-"))
        assert [each.name for each in listed.keys] == [own.key.name]
        await ours.create_key("ours", scopes=["generate"])
    everything = await admin.keys.ListKeys(pb.ListKeysRequest(parent="tenants/-"))
    assert {"tenants/theirs", "tenants/ours", "tenants/headrace", "tenants/default"} == {
        each.name.partition("/keys")[0] for each in everything.keys
    }


async def test_a_key_without_admin_administers_nothing(admin: ControlApi) -> None:
    made = await admin.create_key("ours")
    async with ControlApi(admin.port, made.secret) as user:
        for call in (
            user.create_key("ours"),
            user.keys.ListKeys(pb.ListKeysRequest(parent="tenants/ours")),
            user.keys.RotateKey(pb.RotateKeyRequest(name=made.key.name)),
            user.keys.RevokeKey(pb.RevokeKeyRequest(name=made.key.name)),
            user.keys.UpdateKey(pb.UpdateKeyRequest(key=made.key)),
            user.tenants.GetTenant(tenants_pb2.GetTenantRequest(name="tenants/ours")),
        ):
            assert isinstance(await refused(call), PermissionDenied)
    async with ControlApi(admin.port) as nobody:
        listing = nobody.keys.ListKeys(pb.ListKeysRequest(parent="tenants/-"))
        assert isinstance(await refused(listing), InvalidApiKey)


async def test_a_rotated_key_has_two_secrets_until_the_grace_is_over(
    admin: ControlApi, bus: JetStreamBus
) -> None:
    made = await admin.create_key("ours")
    request = pb.RotateKeyRequest(name=made.key.name, grace=Duration(seconds=3600))
    rotated = await admin.keys.RotateKey(request)
    assert rotated.key.name == made.key.name
    assert rotated.secret != made.secret
    for secret in (made.secret, rotated.secret):
        async with ControlApi(admin.port, secret) as user:
            await user.keys.GetKey(pb.GetKeyRequest(name=made.key.name))
    newest = await admin.keys.RotateKey(pb.RotateKeyRequest(name=made.key.name, grace=Duration()))
    published = await row(bus, made.key.name)
    assert published is not None
    assert len(published.digests) == 1
    for secret in (made.secret, rotated.secret):
        async with ControlApi(admin.port, secret) as user:
            call = user.keys.GetKey(pb.GetKeyRequest(name=made.key.name))
            assert isinstance(await refused(call), InvalidApiKey)
    assert newest.secret
    long = pb.RotateKeyRequest(name=made.key.name, grace=Duration(seconds=31 * 86400))
    error = await refused(admin.keys.RotateKey(long))
    assert (type(error), error.field) == (InvalidRequest, "grace")


async def test_what_a_key_cannot_be_is_said_with_the_field(admin: ControlApi) -> None:
    for fields, field in (
        ({"scopes": []}, "key.scopes"),
        ({"scopes": ["everything"]}, "key.scopes"),
        ({"scopes": ["admin:*", "generate"]}, "key.scopes"),
        ({"models": []}, "key.models"),
        ({"models": ["*", "valley"]}, "key.models"),
        ({"models": [""]}, "key.models[0]"),
        ({"networks": ["10.1.2.3/16"]}, "key.networks[0]"),
        ({"networks": ["everywhere"]}, "key.networks[0]"),
        ({"expire_time": Timestamp(seconds=1)}, "key.expire_time"),
        ({"person": "people/8f3c"}, "key.person"),
        ({"person": "8f3c"}, "key.person"),
        ({"display_name": "x" * 201}, "key.display_name"),
        ({"labels": {"": "x"}}, "key.labels"),
    ):
        error = await refused(admin.create_key("ours", **fields))
        assert (type(error), error.field) == (InvalidRequest, field), fields
    error = await refused(admin.create_key("no/tenant"))
    assert (type(error), error.field) == (InvalidRequest, "parent")


async def test_an_update_changes_what_its_mask_names(admin: ControlApi, bus: JetStreamBus) -> None:
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    made = await admin.create_key("ours", display_name="Old", expire_time=soon)
    changed = pb.Key(name=made.key.name, models=["valley"], display_name="New")

    async def update(*paths: str) -> pb.Key:
        request = pb.UpdateKeyRequest(key=changed, update_mask=FieldMask(paths=paths))
        answer: pb.Key = await admin.keys.UpdateKey(request)
        return answer

    only = await update("models")
    assert (list(only.models), only.display_name) == (["valley"], "Old")
    published = await row(bus, made.key.name)
    assert published is not None
    assert list(published.models) == ["valley"]
    unset = await update()
    assert (unset.display_name, unset.HasField("expire_time")) == ("New", True)
    assert not (await update("expire_time")).HasField("expire_time")
    for path in ("redacted", "name", "limits.anything", "labels.team", "tenant"):
        error = await refused(update(path))
        assert (type(error), error.field) == (InvalidRequest, "update_mask"), path
    error = await refused(update("scopes"))
    assert error.field == "key.scopes"
    await admin.keys.RevokeKey(pb.RevokeKeyRequest(name=made.key.name))
    assert isinstance(await refused(update("models")), FailedPrecondition)


async def test_keys_are_listed_in_pages(admin: ControlApi) -> None:
    names = [(await admin.create_key("ours")).key.name for _ in range(5)]
    await admin.keys.RevokeKey(pb.RevokeKeyRequest(name=names[0]))
    found: list[str] = []
    request = pb.ListKeysRequest(parent="tenants/ours", page_size=2)
    while True:
        page = await admin.keys.ListKeys(request)
        found += [each.name for each in page.keys]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert sorted(found) == sorted(names[1:])
    ended = await admin.keys.ListKeys(pb.ListKeysRequest(parent="tenants/ours", show_ended=True))
    assert len(ended.keys) == 5
    bad = pb.ListKeysRequest(parent="tenants/ours", page_token="x")
    error = await refused(admin.keys.ListKeys(bad))
    assert (type(error), error.field) == (InvalidRequest, "page_token")

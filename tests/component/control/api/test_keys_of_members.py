"""What people do with keys of their own: as members by a session, and by keys that they have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import keys_pb2 as pb
from headrace.auth.caller import Caller
from headrace.auth.scopes import ADMIN, MESH_TENANT, ROLE_SCOPES
from headrace.errors import (
    HeadraceError,
    InvalidRequest,
    PermissionDenied,
    ResourceNotFound,
)
from headrace_control.api.callers import calling
from headrace_control.api.tenancy.key_service import KeyService
from headrace_control.base.records import Digest, Key
from headrace_control.store import Store
from helpers.control_store import ROOT, digest, make_key, make_member


class Parts:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.pepper_id = "p1"

    def digest(self, secret: str) -> Digest:
        return digest(secret)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path / 'control.db'}", upgrade=True)
    await make_key(opened, Key("tenants", "acme", scopes=("generate",), models=("*",)))
    await make_key(opened, Key("foreign", "other", scopes=("generate",), models=("*",)))
    yield opened
    await opened.close()


async def signed_in(store: Store, email: str, role: str) -> Caller:
    person = await make_member(store, "acme", email, role)
    return Caller(
        "acme",
        scopes=ROLE_SCOPES[role],
        person=person.person_id,
        session_id="s",
        role=role,
    )


async def create(store: Store, caller: Caller, **fields: Any) -> pb.CreateKeyResponse:
    chosen: dict[str, Any] = {"scopes": ["generate"], "models": ["*"]} | fields
    request = pb.CreateKeyRequest(parent="tenants/acme", key=pb.Key(**chosen))
    with calling(caller):
        return await KeyService(Parts(store)).CreateKey(request, None)  # type: ignore[arg-type]


async def error_of(caller: Caller, call: Callable[[], Awaitable[object]]) -> HeadraceError:
    with calling(caller), pytest.raises(HeadraceError) as refused:
        await call()
    return refused.value


async def test_a_members_key_is_its_own_and_does_what_the_role_may(store: Store) -> None:
    ann = await signed_in(store, "ann@example.com", "member")
    made = await create(store, ann)
    assert made.key.person == f"people/{ann.person}"
    for fields, kind in (
        ({"scopes": ["admin:*"], "models": []}, InvalidRequest),
        ({"person": "people/other"}, InvalidRequest),
    ):
        error = await error_of(ann, lambda fields=fields: create(store, ann, **fields))  # type: ignore[misc]
        assert type(error) is kind
    vic = await signed_in(store, "vic@example.com", "viewer")
    for scope in ("generate", "models:read"):
        call = lambda scope=scope: create(store, vic, scopes=[scope])  # noqa: E731
        assert type(await error_of(vic, call)) is PermissionDenied


async def test_a_role_that_was_taken_away_makes_no_more_keys(store: Store) -> None:
    ann = await signed_in(store, "ann@example.com", "member")
    await create(store, ann)
    # The session's row has not reached the gate yet.
    await store.members.update("acme", ann.person, "viewer", by=ROOT)
    assert type(await error_of(ann, lambda: create(store, ann))) is PermissionDenied
    await store.members.delete("acme", ann.person, by=ROOT)
    assert type(await error_of(ann, lambda: create(store, ann))) is PermissionDenied


async def test_a_member_sees_and_ends_its_own_keys_only(store: Store) -> None:
    ann = await signed_in(store, "ann@example.com", "member")
    bob = await signed_in(store, "bob@example.com", "member")
    own, bobs = await create(store, ann), await create(store, bob)
    service = KeyService(Parts(store))
    context: Any = None
    with calling(ann):
        for parent in ("tenants/acme", "tenants/-"):
            listed = await service.ListKeys(pb.ListKeysRequest(parent=parent), context)
            assert [key.name for key in listed.keys] == [own.key.name]
        for name in (bobs.key.name, "tenants/acme/keys/tenants", "tenants/-/keys/foreign"):
            for call in (
                service.GetKey(pb.GetKeyRequest(name=name), context),
                service.RotateKey(pb.RotateKeyRequest(name=name), context),
                service.RevokeKey(pb.RevokeKeyRequest(name=name), context),
            ):
                with pytest.raises(ResourceNotFound, match=r"key .* not found"):
                    await call
        rotated = await service.RotateKey(pb.RotateKeyRequest(name=own.key.name), context)
        assert rotated.secret != own.secret
        await service.RevokeKey(pb.RevokeKeyRequest(name=own.key.name), context)


async def test_a_persons_key_makes_and_rotates_none_that_may_do_more(store: Store) -> None:
    ann = await signed_in(store, "ann@example.com", "member")
    wide = await create(store, ann, scopes=["generate", "embed"])
    narrow = await create(store, ann, models=["valley"])
    leaked = replace(
        ann,
        role="",
        session_id="",
        key_id=narrow.key.name.rpartition("/")[2],
        scopes=frozenset({"generate"}),
        models=frozenset({"valley"}),
    )
    service = KeyService(Parts(store))
    context: Any = None
    made = await create(store, leaked, models=["valley"])
    assert made.key.person == f"people/{ann.person}"
    for fields in ({"scopes": ["embed"], "models": ["valley"]}, {"models": ["*"]}):
        call = lambda fields=fields: create(store, leaked, **fields)  # noqa: E731
        assert type(await error_of(leaked, call)) is InvalidRequest
    rotate = pb.RotateKeyRequest(name=wide.key.name)
    error = await error_of(leaked, lambda: service.RotateKey(rotate, context))
    assert type(error) is PermissionDenied


async def test_a_persons_key_makes_and_rotates_none_that_is_valid_longer_or_elsewhere(
    store: Store,
) -> None:
    ann = await signed_in(store, "ann@example.com", "member")
    wide = await create(store, ann)
    ends = int(store.now().timestamp()) + 3600
    own = await create(store, ann, networks=["10.0.0.0/8"], expire_time=Timestamp(seconds=ends))
    by_key = replace(ann, role="", session_id="", key_id=own.key.name.rpartition("/")[2])
    fine = {"networks": ["10.1.0.0/16"], "expire_time": Timestamp(seconds=ends)}
    await create(store, by_key, **fine)
    for fields, field in (
        ({"networks": []}, "key.networks"),
        ({"networks": ["10.1.0.0/16", "0.0.0.0/0"]}, "key.networks"),
        ({"networks": ["::/0"]}, "key.networks"),
        ({"expire_time": None}, "key.expire_time"),
        ({"expire_time": Timestamp(seconds=ends + 1)}, "key.expire_time"),
    ):
        call = lambda fields=fields: create(store, by_key, **(fine | fields))  # noqa: E731
        error = await error_of(by_key, call)
        assert (type(error), error.field) == (InvalidRequest, field)
    service, context = KeyService(Parts(store)), cast(Any, None)
    for made, is_own in ((wide, False), (own, True)):
        rotate = pb.RotateKeyRequest(name=made.key.name)
        if is_own:
            with calling(by_key):
                await service.RotateKey(rotate, context)
        else:
            error = await error_of(by_key, lambda: service.RotateKey(rotate, context))  # noqa: B023
            assert type(error) is PermissionDenied


async def test_a_persons_key_takes_no_restriction_from_itself_or_another(store: Store) -> None:
    ann = await signed_in(store, "ann@example.com", "member")
    wide = await create(store, ann)
    ends = Timestamp(seconds=int(store.now().timestamp()) + 3600)
    own = await create(store, ann, networks=["10.0.0.0/8"], expire_time=ends)
    key_id = own.key.name.rpartition("/")[2]
    by_key = replace(ann, role="", session_id="", key_id=key_id)
    service, context = KeyService(Parts(store)), cast(Any, None)

    def changing(key: pb.Key, path: str) -> Callable[[], Awaitable[object]]:
        mask = FieldMask(paths=[path])
        request = pb.UpdateKeyRequest(key=pb.Key(name=key.name), update_mask=mask)
        return lambda: service.UpdateKey(request, context)

    # As a call with the key, and one of a session that was opened with it.
    for caller in (by_key, replace(by_key, session_id="s")):
        for key, path in ((own.key, "networks"), (own.key, "expire_time"), (wide.key, "labels")):
            error = await error_of(caller, changing(key, path))
            assert type(error) is InvalidRequest
        with calling(caller):
            await changing(own.key, "display_name")()
    await store.keys.revoke("acme", key_id, by=ROOT)
    fields: dict[str, Any] = {"networks": ["10.1.0.0/16"], "expire_time": ends}
    error = await error_of(by_key, lambda: create(store, by_key, **fields))
    assert type(error) is PermissionDenied


async def test_nobody_gets_a_secret_of_another_persons_key(store: Store) -> None:
    ann = await signed_in(store, "ann@example.com", "owner")
    bob = await signed_in(store, "bob@example.com", "admin")
    root = Caller(MESH_TENANT, scopes=frozenset({ADMIN}), key_id="root")
    key = pb.Key(scopes=["admin:*"], person=f"people/{ann.person}")
    service = KeyService(Parts(store))
    context: Any = None
    with calling(ann):
        request = pb.CreateKeyRequest(parent="tenants/acme", key=key)
        owners = await service.CreateKey(request, context)
    rotate = pb.RotateKeyRequest(name=owners.key.name)
    for caller in (bob, root):
        error = await error_of(caller, lambda: service.RotateKey(rotate, context))
        assert type(error) is PermissionDenied
        assert "revoke it instead" in error.message
    with calling(ann):
        await service.RotateKey(rotate, context)
    with calling(bob):
        await service.RevokeKey(pb.RevokeKeyRequest(name=owners.key.name), context)

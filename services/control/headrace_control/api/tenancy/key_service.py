"""KeyService: API keys, whose secrets are shown once."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from headrace.admin.v1 import keys_pb2 as pb
from headrace.admin.v1.keys_pb2_grpc import KeyServiceServicer
from headrace.auth.caller import Caller
from headrace.auth.keys import key_id_of, new_key, redacted
from headrace.errors import InvalidRequest, PermissionDenied, ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.resource_names import id_in, ids_in
from headrace_control.api.tenancy import rules
from headrace_control.api.tenancy.key_messages import KEY_FIELDS, key_in, key_message, person_in
from headrace_control.api.tenancy.masks import updated
from headrace_control.base.names import checked_name
from headrace_control.base.records import Digest, Key, Page
from headrace_control.store import PageOptions, Store

KEY_NAME = "tenants/{tenant}/keys/{key}"
DEFAULT_GRACE, MAX_GRACE = timedelta(days=1), timedelta(days=30)


class KeyParts(Protocol):
    """What the service uses of `Parts`."""

    @property
    def store(self) -> Store: ...

    @property
    def pepper_id(self) -> str: ...

    def digest(self, secret: str) -> Digest: ...


class KeyService(KeyServiceServicer):
    def __init__(self, parts: KeyParts) -> None:
        self._parts, self._keys = parts, parts.store.keys

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        caller = current_caller()
        tenant = checked_name(
            id_in(request.parent, "tenants/{tenant}", field="parent"), field="parent"
        )
        rules.require_tenant(caller, tenant)
        role = await self._role(caller, tenant)
        person = rules.key_owner(caller, tenant, person_in(request.key), role)
        secret = new_key()
        template = Key(key_id_of(secret) or "", tenant, person=person, redacted=redacted(secret))
        key = key_in(request.key, template, now=self._parts.store.now())
        rules.check_grant(caller, key, await self._own(caller, tenant))
        made = await self._keys.create(
            key,
            self._parts.digest(secret),
            make_tenant=caller.is_operator,
            by=rules.actor(caller),
        )
        return pb.CreateKeyResponse(key=self._message(made), secret=secret)

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.Key:
        return self._message(await self._visible(current_caller(), request.name))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        caller = current_caller()
        tenant = id_in(request.parent, "tenants/{tenant}", field="parent")
        if tenant == rules.EVERY_TENANT:
            tenant = "" if caller.is_operator else caller.tenant
        else:
            rules.require_tenant(caller, tenant)
        if tenant and caller.is_operator:
            await self._parts.store.tenants.get(tenant)
        page = await self._page(caller, tenant, request)
        return pb.ListKeysResponse(
            keys=map(self._message, page.items), next_page_token=page.next_page_token
        )

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Context) -> pb.Key:
        caller, pepper_id = current_caller(), self._parts.pepper_id
        before = await self._visible(caller, request.key.name, field="key.name")
        rules.require_change(caller, before, "changing")
        own = await self._own(caller, before.tenant)

        def edit(key: Key) -> Key:
            message = key_message(key, pepper_id=pepper_id, now=self._parts.store.now())
            message = updated(message, request.key, request.update_mask, KEY_FIELDS)
            after = key_in(message, key, now=self._parts.store.now())
            rules.check_grant(caller, after, own)
            return after

        by = rules.actor(caller)
        return self._message(await self._keys.update(before.tenant, before.key_id, edit, by=by))

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        caller = current_caller()
        key = await self._visible(caller, request.name)
        rules.require_change(caller, key, "rotating")
        rules.require_secret(caller, key, await self._own(caller, key.tenant))
        grace = grace_in(request.grace if request.HasField("grace") else None)
        secret = new_key(key.key_id)
        rotated = await self._keys.rotate(
            key.tenant,
            key.key_id,
            self._parts.digest(secret),
            redacted=redacted(secret),
            old_ends=self._parts.store.now() + grace,
            by=rules.actor(caller),
        )
        return pb.CreateKeyResponse(key=self._message(rotated), secret=secret)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.Key:
        caller = current_caller()
        key = await self._visible(caller, request.name)
        rules.require_change(caller, key, "revoking")
        return self._message(
            await self._keys.revoke(key.tenant, key.key_id, by=rules.actor(caller))
        )

    async def _visible(self, caller: Caller, name: str, *, field: str = "name") -> Key:
        """Return the key of this name.

        Raises:
            InvalidRequest: it is no name of a key.
            ResourceNotFound: there is none that the caller may see.
        """
        tenant, key_id = ids_in(name, KEY_NAME, field=field)
        try:
            key = await self._keys.find(key_id)
        except ResourceNotFound:
            raise rules.no_key(key_id) from None
        if tenant not in (rules.EVERY_TENANT, key.tenant) or not rules.may_see(caller, key):
            raise rules.no_key(key_id)
        return key

    async def _page(self, caller: Caller, tenant: str, request: pb.ListKeysRequest) -> Page[Key]:
        person = ""
        if not caller.is_operator and not caller.may_administer(tenant):
            person = caller.person
            if not person:
                raise PermissionDenied(
                    f"listing the keys of tenant {tenant} needs the scope admin:*"
                )
        return await self._keys.list(
            tenant,
            person=person,
            show_ended=request.show_ended,
            options=PageOptions(request.page_size, request.page_token),
        )

    async def _role(self, caller: Caller, tenant: str) -> str:
        """Return the role of the caller's person in a tenant now; empty without one."""
        if caller.may_administer(tenant) or not caller.person:
            return ""
        try:
            return (await self._parts.store.members.get(tenant, caller.person)).role
        except ResourceNotFound:
            return ""

    async def _own(self, caller: Caller, tenant: str) -> Key | None:
        """Return the key of the call, or that its session was opened with; None without one, and
        of administrators of the tenant, whose keys bound no others.

        Raises:
            PermissionDenied: it has just ended.
        """
        if not caller.key_id or caller.may_administer(tenant):
            return None
        try:
            own = await self._keys.get(caller.tenant, caller.key_id)
        except ResourceNotFound:
            raise PermissionDenied(f"key {caller.key_id} of the caller is gone") from None
        if own.revoke_time is not None:
            raise PermissionDenied(f"key {caller.key_id} of the caller has been revoked")
        return own

    def _message(self, key: Key) -> pb.Key:
        now = self._parts.store.now()
        return key_message(key, pepper_id=self._parts.pepper_id, now=now)


def grace_in(given: Duration | None) -> timedelta:
    """Return how long an old secret goes on; None: the default.

    Raises:
        InvalidRequest: it is out of its range.
    """
    if given is None:
        return DEFAULT_GRACE
    # Why by hand: ToTimedelta fails above what a timedelta holds.
    seconds = given.seconds + given.nanos / 1e9
    if not 0 <= seconds <= MAX_GRACE.total_seconds():
        raise InvalidRequest(
            f"grace is {seconds:g} s; it must be 0 s to {MAX_GRACE.days} days", field="grace"
        )
    return timedelta(seconds=seconds)

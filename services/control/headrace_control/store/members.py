"""Members of tenants in the database, and invitations to become one."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import (
    FailedPrecondition,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceNotFound,
)
from headrace_control.base.names import email_key, new_id
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import (
    OWNER,
    ROLES,
    Actor,
    Invitation,
    Member,
    Page,
    Person,
)
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.records import invitation_of, member_of
from headrace_control.store.database.tables import invitations, keys, members, people, sessions
from headrace_control.store.database.transactions import Change, Database
from headrace_control.store.endings import (
    delete_sessions,
    member_role,
    revoke_keys,
    rewrite_keys,
    rewrite_sessions,
)
from headrace_control.store.people import create_person, get_person, try_person
from headrace_control.store.tenants import tenant_exists

MAX_INVITATIONS = 1000
"""Of one tenant, that are not accepted."""
_MEMBERS = Listing("members", (members.c.person,))
_INVITATIONS = Listing("invitations", (invitations.c.create_ms, invitations.c.invitation_id))
_NO_INVITATION = "invitation not found: there is none, or it has been used or expired"
_WITH_EMAIL = sa.select(members, people.c.email).join_from(members, people)


class Members:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: str, person: str, role: str, *, by: Actor) -> Member:
        """Make a person a member of a tenant.

        Raises:
            InvalidRequest: the role is none of ROLES.
            ResourceNotFound: there is no such tenant or person.
            ResourceExists: the person is a member already.
        """
        async with self._database.changing(by) as change:
            return await create_member(change, Member(tenant, person, _role(role)))

    async def get(self, tenant: str, person: str) -> Member:
        """Return the membership.

        Raises:
            ResourceNotFound: the person is no member of the tenant.
        """
        async with self._database.reading() as connection:
            return await _member(connection, tenant, person)

    async def list(self, tenant: str, options: PageOptions = FIRST_PAGE) -> Page[Member]:
        """Return a page of a tenant's members."""
        query = _WITH_EMAIL.where(members.c.tenant == tenant)
        async with self._database.reading() as connection:
            return await _MEMBERS.page(connection, query, options, member_of)

    async def update(self, tenant: str, person: str, role: str, *, by: Actor) -> Member:
        """Give a member another role; the person's sessions and keys of this tenant follow at once.

        Raises:
            InvalidRequest: the role is none of ROLES.
            ResourceNotFound: the person is no member of the tenant.
            FailedPrecondition: this is the tenant's last owner.
        """
        async with self._database.changing(by) as change:
            before = await _member(change.connection, tenant, person)
            if _role(role) != OWNER:
                await _check_last_owner(change.connection, before)
            of_member = _of(members, tenant, person)
            await change.execute(sa.update(members).where(of_member).values(role=role))
            await change.record(
                "members.update", _name(before), tenant=tenant, details={"role": role}
            )
            await rewrite_sessions(change, _of(sessions, tenant, person))
            await rewrite_keys(change, _of(keys, tenant, person))
            return await _member(change.connection, tenant, person)

    async def delete(self, tenant: str, person: str, *, by: Actor) -> None:
        """End a membership, with the person's sessions and keys of this tenant.

        Raises:
            ResourceNotFound: the person is no member of the tenant.
            FailedPrecondition: this is the tenant's last owner.
        """
        async with self._database.changing(by) as change:
            member = await _member(change.connection, tenant, person)
            await _check_last_owner(change.connection, member)
            ended = {
                "sessions": await delete_sessions(change, _of(sessions, tenant, person)),
                "keys": await revoke_keys(change, _of(keys, tenant, person)),
            }
            await change.execute(sa.delete(members).where(_of(members, tenant, person)))
            await change.record("members.delete", _name(member), tenant=tenant, details=ended)


class Invitations:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant: str, email: str, role: str, *, token_hash: str, expires: datetime, by: Actor
    ) -> Invitation:
        """Invite whoever has this e-mail address.

        Args:
            token_hash: of the token that accepts it; the token itself is not kept.

        Raises:
            InvalidRequest: the address or the role is none.
            ResourceNotFound: there is no such tenant.
            FailedPrecondition: it has MAX_INVITATIONS, expired ones too.
        """
        email_key(email)
        async with self._database.changing(by) as change:
            if not await tenant_exists(change.connection, tenant):
                raise ResourceNotFound(f"tenant {tenant} not found")
            await _check_invitations(change.connection, tenant)
            invitation = Invitation(new_id(), tenant, email, _role(role), expires, change.now)
            values = {
                "invitation_id": invitation.invitation_id,
                "tenant": tenant,
                "email": email,
                "role": role,
                "token_hash": token_hash,
                "expire_ms": milliseconds(expires),
                "create_ms": change.now_ms,
            }
            await change.execute(sa.insert(invitations).values(values))
            await _record(change, "invitations.create", invitation)
            return invitation

    async def list(self, tenant: str, options: PageOptions = FIRST_PAGE) -> Page[Invitation]:
        """Return a page of a tenant's invitations that are not accepted, expired ones too."""
        query = sa.select(invitations).where(invitations.c.tenant == tenant)
        async with self._database.reading() as connection:
            return await _INVITATIONS.page(connection, query, options, invitation_of)

    async def delete(self, tenant: str, invitation_id: str, *, by: Actor) -> None:
        """Delete an invitation; its token is worth nothing any more.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        which = sa.and_(
            invitations.c.tenant == tenant, invitations.c.invitation_id == invitation_id
        )
        async with self._database.changing(by) as change:
            if (invitation := await _invitation(change.connection, which)) is None:
                raise ResourceNotFound(f"invitation {invitation_id} not found")
            await change.execute(sa.delete(invitations).where(which))
            await _record(change, "invitations.delete", invitation)

    async def accept(
        self, token_hash: str, *, display_name: str = "", signed_in_as: str = "", by: Actor
    ) -> tuple[Person, Member]:
        """Make the person with the invitation's address a member, once; a person is made if there
        is none. A member already keeps the higher of both roles.

        Whoever has the token need not be the person: it was shown to whoever invited. So a person
        who is a member of anything, or whom a provider knows, has to be signed in to accept.

        Args:
            signed_in_as: id of the person who accepts; empty: nobody is signed in.

        Raises:
            ResourceNotFound: there is no such invitation, or it is accepted or expired.
            PermissionDenied: the person is another one than is signed in, or is deactivated.
        """
        which = invitations.c.token_hash == token_hash
        # Why: whoever reaches the port may guess, and writers wait for one another.
        async with self._database.reading() as connection:
            if await _invitation(connection, which) is None:
                raise ResourceNotFound(_NO_INVITATION)
        async with self._database.changing(by) as change:
            invitation = await _invitation(change.connection, which)
            if invitation is None or invitation.expire_time <= change.now:
                raise ResourceNotFound(_NO_INVITATION)
            person = await _acceptor(change, invitation, display_name, signed_in_as)
            return person, await accept_invitation(change, invitation, person)


def _role(role: str) -> str:
    if role not in ROLES:
        raise InvalidRequest(f"role is {role[:40]!r}; it must be one of {', '.join(ROLES)}")
    return role


def _of(table: sa.Table, tenant: str, person: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.tenant == tenant, table.c.person == person)


def _name(member: Member) -> str:
    return f"tenants/{member.tenant}/members/{member.person}"


async def create_member(change: Change, member: Member) -> Member:
    """Make a person a member as a part of a change."""
    if not await tenant_exists(change.connection, member.tenant):
        raise ResourceNotFound(f"tenant {member.tenant} not found")
    await get_person(change.connection, member.person)
    if await member_role(change.connection, member.tenant, member.person):
        raise ResourceExists(f"person {member.person} is a member of {member.tenant} already")
    values = {
        "tenant": member.tenant,
        "person": member.person,
        "role": member.role,
        "create_ms": change.now_ms,
    }
    await change.execute(sa.insert(members).values(values))
    await change.record(
        "members.create", _name(member), tenant=member.tenant, details={"role": member.role}
    )
    return await _member(change.connection, member.tenant, member.person)


async def _member(connection: AsyncConnection, tenant: str, person: str) -> Member:
    query = _WITH_EMAIL.where(_of(members, tenant, person))
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"person {person} is no member of tenant {tenant}")
    return member_of(row)


async def _check_last_owner(connection: AsyncConnection, member: Member) -> None:
    if member.role != OWNER:
        return
    is_other = sa.and_(
        members.c.tenant == member.tenant,
        members.c.role == OWNER,
        members.c.person != member.person,
        people.c.deactivated.is_(False),
    )
    others = sa.select(members.c.person).join_from(members, people).where(is_other).limit(1)
    if await connection.scalar(others) is None:
        raise FailedPrecondition(
            f"person {member.person} is the last owner of tenant {member.tenant}: make another"
            " member an owner first"
        )


async def _invitation(
    connection: AsyncConnection, which: sa.ColumnElement[bool]
) -> Invitation | None:
    row = (await connection.execute(sa.select(invitations).where(which))).one_or_none()
    return None if row is None else invitation_of(row)


async def _check_invitations(connection: AsyncConnection, tenant: str) -> None:
    of_tenant = invitations.c.tenant == tenant
    count = sa.select(sa.func.count()).select_from(invitations).where(of_tenant)
    if (await connection.scalar(count) or 0) >= MAX_INVITATIONS:
        raise FailedPrecondition(
            f"tenant {tenant} has {MAX_INVITATIONS} invitations, and may have no more: delete those"
            " that are not wanted"
        )


async def _record(change: Change, action: str, invitation: Invitation) -> None:
    resource = f"tenants/{invitation.tenant}/invitations/{invitation.invitation_id}"
    details = {"email": invitation.email, "role": invitation.role}
    await change.record(action, resource, tenant=invitation.tenant, details=details)


async def _acceptor(
    change: Change, invitation: Invitation, display_name: str, signed_in_as: str
) -> Person:
    has_email = people.c.email_key == email_key(invitation.email)
    person = await try_person(change.connection, has_email)
    if person is None:
        made = Person("", email=invitation.email, display_name=display_name)
        return await create_person(change, made)
    is_member = sa.select(members.c.tenant).where(members.c.person == person.person_id).limit(1)
    is_known = person.subject or await change.connection.scalar(is_member) is not None
    if person.deactivated or (is_known and person.person_id != signed_in_as):
        raise PermissionDenied(
            f"the invitation is for {invitation.email}: sign in as this person, and accept it then"
        )
    return person


async def accept_invitation(change: Change, invitation: Invitation, person: Person) -> Member:
    """Make the person a member as the invitation says, as a part of a change."""
    tenant, person_id = invitation.tenant, person.person_id
    is_invitation = invitations.c.invitation_id == invitation.invitation_id
    await change.execute(sa.delete(invitations).where(is_invitation))
    await _record(change, "invitations.accept", invitation)
    role = await member_role(change.connection, tenant, person_id)
    if not role:
        return await create_member(change, Member(tenant, person_id, invitation.role))
    if ROLES.index(invitation.role) > ROLES.index(role):
        of_member = _of(members, tenant, person_id)
        await change.execute(sa.update(members).where(of_member).values(role=invitation.role))
        member = Member(tenant, person_id, invitation.role)
        details = {"role": invitation.role}
        await change.record("members.update", _name(member), tenant=tenant, details=details)
        await rewrite_sessions(change, _of(sessions, tenant, person_id))
        await rewrite_keys(change, _of(keys, tenant, person_id))
    return await _member(change.connection, tenant, person_id)

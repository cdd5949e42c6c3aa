"""Who may sign in of those whom an OpenID provider has proved, as one change of the database."""

from __future__ import annotations

import sqlalchemy as sa

from headrace.errors import PermissionDenied
from headrace_control.base.names import email_key
from headrace_control.base.records import BY_INVITATION, Actor, Identity, Invitation, Member, Person
from headrace_control.store.database.records import invitation_of
from headrace_control.store.database.tables import invitations, members, people, sessions, tenants
from headrace_control.store.database.transactions import Change, Database
from headrace_control.store.endings import delete_sessions
from headrace_control.store.members import accept_invitation, create_member
from headrace_control.store.people import create_person, link_person, try_person


class SignIns:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def admit(
        self, identity: Identity, newcomers: Member | None, *, by: Actor
    ) -> tuple[Person, tuple[str, ...]]:
        """Return the person, and the tenants that are not disabled, those joined first first.

        A person is known by the provider's subject. One who is not yet is found by the verified
        e-mail address, or is made because of an invitation to it, and then has the subject. The
        invitations to the address are accepted if the person is a member of nothing yet: others
        accept by the token, so that no tenant draws people of another one to itself.

        Args:
            newcomers: the membership that a person gets who is not known and not invited; None:
                such a person is refused.

        Raises:
            PermissionDenied: the person is not known, deactivated, or a member of no tenant.
        """
        async with self._database.changing(by) as change:
            person = await _known(change, identity)
            invited = await _invitations(change, identity.email)
            if person is not None and await _is_member(change, person):
                invited = []
            joins = None
            if person is None and (invited or newcomers):
                joins = None if invited else newcomers
                person = await create_person(change, _person_of(identity))
            if person is None:
                raise PermissionDenied(f"{_shown(identity)} has no account here: {_ASK}")
            if person.deactivated:
                raise PermissionDenied(f"the account of {_shown(identity)} is deactivated: {_ASK}")
            for invitation in invited:
                await accept_invitation(change, invitation, person)
            if joins is not None:
                await create_member(change, Member(joins.tenant, person.person_id, joins.role))
            found = await _tenants(change, person)
            if not found:
                raise PermissionDenied(f"{_shown(identity)} is a member of no tenant here: {_ASK}")
            return person, found


_ASK = "ask an administrator of this mesh for an invitation"


async def _known(change: Change, identity: Identity) -> Person | None:
    is_subject = sa.and_(people.c.issuer == identity.issuer, people.c.subject == identity.subject)
    if person := await try_person(change.connection, is_subject):
        return person
    if not identity.email:
        return None
    person = await try_person(change.connection, people.c.email_key == email_key(identity.email))
    if person is None:
        return None
    # An address may be given to another person; its holder of before is known by the subject.
    if person.subject or not _is_same(person.email, identity.email):
        raise PermissionDenied(
            f"the account of {identity.email} belongs to another account of the provider: {_ASK}"
        )
    # Whoever had an invitation's token opened these; only now it is known whose account this is.
    by_token = sa.and_(sessions.c.person == person.person_id, sessions.c.opened_by == BY_INVITATION)
    await delete_sessions(change, by_token)
    return await link_person(change, person, identity.issuer, identity.subject)


async def _invitations(change: Change, email: str) -> list[Invitation]:
    if not email:
        return []
    is_to = sa.func.lower(invitations.c.email) == sa.func.lower(email)
    is_open = invitations.c.expire_ms > change.now_ms
    query = sa.select(invitations).where(is_to, is_open).order_by(invitations.c.create_ms)
    found = [invitation_of(row) for row in await change.execute(query)]
    return [each for each in found if _is_same(each.email, email)]


async def _is_member(change: Change, person: Person) -> bool:
    query = sa.select(members.c.tenant).where(members.c.person == person.person_id).limit(1)
    return await change.connection.scalar(query) is not None


async def _tenants(change: Change, person: Person) -> tuple[str, ...]:
    is_enabled = tenants.c.disabled.is_(False)
    query = sa.select(members.c.tenant).join_from(members, tenants)
    query = query.where(members.c.person == person.person_id, is_enabled)
    order = members.c.create_ms, members.c.tenant
    return tuple((await change.execute(query.order_by(*order))).scalars())


def _is_same(first: str, second: str) -> bool:
    """Return whether two addresses are one mailbox.

    Without case, but only within ASCII: what else Unicode folds together, as ß and ss, are domains
    of different owners.
    """
    if first.isascii() and second.isascii():
        return first.lower() == second.lower()
    return first == second


def _person_of(identity: Identity) -> Person:
    return Person(
        "",
        email=identity.email,
        display_name=identity.display_name,
        issuer=identity.issuer,
        subject=identity.subject,
    )


def _shown(identity: Identity) -> str:
    return identity.email or f"subject {identity.subject[:80]}, without a verified e-mail address,"

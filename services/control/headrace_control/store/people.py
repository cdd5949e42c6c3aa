"""People in the database: who may sign in."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import FailedPrecondition, ResourceExists, ResourceNotFound
from headrace_control.base.names import email_key, new_id
from headrace_control.base.records import Actor, Member, Page, Person
from headrace_control.store.changes import changed
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.records import member_of, person_of
from headrace_control.store.database.tables import keys, members, people, sessions
from headrace_control.store.database.transactions import Change, Database
from headrace_control.store.endings import delete_sessions, revoke_keys

_PEOPLE = Listing("people", (people.c.create_ms, people.c.person_id))


class People:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, person: Person, *, by: Actor) -> Person:
        """Create a person, and return it with its id, whatever `person_id` was, and its time.

        Raises:
            InvalidRequest: the e-mail address is none.
            ResourceExists: there is a person with this address, or with this provider's subject.
        """
        async with self._database.changing(by) as change:
            return await create_person(change, person)

    async def get(self, person_id: str) -> Person:
        """Return the person.

        Raises:
            ResourceNotFound: there is none of this id.
        """
        async with self._database.reading() as connection:
            return await get_person(connection, person_id)

    async def try_by_email(self, email: str) -> Person | None:
        """Return the person with this e-mail address, whatever its case."""
        async with self._database.reading() as connection:
            return await try_person(connection, people.c.email_key == email_key(email))

    async def try_by_subject(self, issuer: str, subject: str) -> Person | None:
        """Return the person whom an OpenID provider knows by this `sub`."""
        async with self._database.reading() as connection:
            return await try_person(connection, _of_subject(issuer, subject))

    async def memberships(self, person_id: str) -> tuple[Member, ...]:
        """Return what tenants the person is a member of, by name; at most 1000."""
        query = sa.select(members, people.c.email).join_from(members, people)
        query = query.where(members.c.person == person_id).order_by(members.c.tenant).limit(1000)
        async with self._database.reading() as connection:
            return tuple(member_of(row) for row in await connection.execute(query))

    async def list(self, options: PageOptions = FIRST_PAGE) -> Page[Person]:
        """Return a page of all people, the oldest first."""
        async with self._database.reading() as connection:
            return await _PEOPLE.page(connection, sa.select(people), options, person_of)

    async def link_subject(self, person_id: str, issuer: str, subject: str, *, by: Actor) -> Person:
        """Remember by which `sub` an OpenID provider knows a person; it stays for good.

        Raises:
            ResourceNotFound: there is no such person.
            ResourceExists: another person has this subject.
            FailedPrecondition: this person has another subject.
        """
        async with self._database.changing(by) as change:
            person = await get_person(change.connection, person_id)
            if (person.issuer, person.subject) == (issuer, subject):
                return person
            return await link_person(change, person, issuer, subject)

    async def deactivate(self, person_id: str, *, by: Actor) -> Person:
        """End the person's sessions, and revoke the person's keys, for good. Idempotent.

        Raises:
            ResourceNotFound: there is no such person.
        """
        async with self._database.changing(by) as change:
            person = await get_person(change.connection, person_id)
            if person.deactivated:
                return person
            await _set(change, person_id, {"deactivated": True})
            ended = {
                "sessions": await delete_sessions(change, sessions.c.person == person_id),
                "keys": await revoke_keys(change, keys.c.person == person_id),
            }
            await change.record("people.deactivate", f"people/{person_id}", details=ended)
            return await get_person(change.connection, person_id)

    async def activate(self, person_id: str, *, by: Actor) -> Person:
        """Let a deactivated person sign in again. Idempotent; revoked keys stay revoked.

        Raises:
            ResourceNotFound: there is no such person.
        """
        async with self._database.changing(by) as change:
            person = await get_person(change.connection, person_id)
            if not person.deactivated:
                return person
            await _set(change, person_id, {"deactivated": False})
            await change.record("people.activate", f"people/{person_id}")
            return await get_person(change.connection, person_id)


async def create_person(change: Change, person: Person) -> Person:
    """Create a person as a part of a change."""
    key = email_key(person.email) if person.email else None
    if key and await try_person(change.connection, people.c.email_key == key):
        raise ResourceExists(f"there is a person with the e-mail address {person.email}")
    is_known = _of_subject(person.issuer, person.subject)
    if person.subject and await try_person(change.connection, is_known):
        raise ResourceExists(f"another person has this subject of {person.issuer}")
    person_id = new_id()
    values = {
        "person_id": person_id,
        "email": person.email,
        "email_key": key,
        "display_name": person.display_name,
        "issuer": person.issuer or None,
        "subject": person.subject or None,
        "deactivated": False,
        "create_ms": change.now_ms,
    }
    await change.execute(sa.insert(people).values(values))
    details = changed(Person(person.person_id), person)
    await change.record("people.create", f"people/{person_id}", details=details)
    return await get_person(change.connection, person_id)


async def link_person(change: Change, person: Person, issuer: str, subject: str) -> Person:
    """Remember a provider's subject as a part of a change."""
    person_id = person.person_id
    if person.subject:
        raise FailedPrecondition(
            f"person {person_id} is known to provider {person.issuer} by another subject"
        )
    if await try_person(change.connection, _of_subject(issuer, subject)):
        raise ResourceExists(f"another person has this subject of {issuer}")
    await _set(change, person_id, {"issuer": issuer, "subject": subject})
    details = {"issuer": issuer, "subject": subject}
    await change.record("people.link", f"people/{person_id}", details=details)
    return await get_person(change.connection, person_id)


async def get_person(connection: AsyncConnection, person_id: str) -> Person:
    if (person := await try_person(connection, people.c.person_id == person_id)) is None:
        raise ResourceNotFound(f"person {person_id} not found")
    return person


async def try_person(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> Person | None:
    row = (await connection.execute(sa.select(people).where(which))).one_or_none()
    return None if row is None else person_of(row)


def _of_subject(issuer: str, subject: str) -> sa.ColumnElement[bool]:
    return sa.and_(people.c.issuer == issuer, people.c.subject == subject)


async def _set(change: Change, person_id: str, values: dict[str, Any]) -> None:
    await change.execute(sa.update(people).where(people.c.person_id == person_id).values(values))

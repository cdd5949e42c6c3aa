"""People, members, invitations and sessions as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1.people_pb2 import Invitation, Member, Person, Role
from headrace.admin.v1.sessions_pb2 import Session
from headrace.auth.caller import Caller
from headrace.auth.scopes import ROLE_SCOPES
from headrace.errors import InvalidRequest
from headrace_control.base import records

_ROLES = {
    Role.ROLE_VIEWER: records.VIEWER,
    Role.ROLE_MEMBER: records.MEMBER,
    Role.ROLE_ADMIN: records.ADMIN,
    Role.ROLE_OWNER: records.OWNER,
}
_NUMBERS = {name: number for number, name in _ROLES.items()}


def role_named(role: Role.ValueType, *, field: str) -> str:
    """Return the role's name, as `owner`.

    Raises:
        InvalidRequest: it is unspecified or unknown.
    """
    if role not in _ROLES:
        known = ", ".join(Role.Name(each) for each in _ROLES)
        raise InvalidRequest(f"{field} is {role}; it must be one of {known}", field=field)
    return _ROLES[role]


def person_message(person: records.Person, memberships: Iterable[records.Member] = ()) -> Person:
    return Person(
        name=f"people/{person.person_id}",
        email=person.email,
        display_name=person.display_name,
        deactivated=person.deactivated,
        create_time=_stamp(person.create_time),
        last_sign_in_time=_stamp(person.last_sign_in_time),
        memberships=map(member_message, memberships),
    )


def member_message(member: records.Member) -> Member:
    return Member(
        name=f"tenants/{member.tenant}/members/{member.person}",
        role=_NUMBERS[member.role],
        email=member.email,
        create_time=_stamp(member.create_time),
    )


def invitation_message(invitation: records.Invitation) -> Invitation:
    return Invitation(
        name=f"tenants/{invitation.tenant}/invitations/{invitation.invitation_id}",
        email=invitation.email,
        role=_NUMBERS[invitation.role],
        expire_time=_stamp(invitation.expire_time),
    )


def session_message(session: records.Session) -> Session:
    return Session(
        name=f"sessions/{session.session_id}",
        tenant=f"tenants/{session.tenant}",
        person=f"people/{session.person}" if session.person else "",
        role=session.role,
        scopes=sorted(ROLE_SCOPES.get(session.role, session.scopes)),
        create_time=_stamp(session.create_time),
        expire_time=_stamp(session.expire_time),
        client=session.client,
        key=_key_name(session.tenant, session.key_id),
    )


def caller_message(caller: Caller) -> Session:
    """Return who a caller without a session is."""
    return Session(
        name="sessions/me",
        tenant=f"tenants/{caller.tenant}",
        person=f"people/{caller.person}" if caller.person else "",
        scopes=sorted(caller.scopes),
        client=caller.client,
        key=_key_name(caller.tenant, caller.key_id),
    )


def _key_name(tenant: str, key_id: str) -> str:
    return f"tenants/{tenant}/keys/{key_id}" if key_id else ""


def _stamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp

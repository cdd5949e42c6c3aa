"""PersonService: who may sign in."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

from headrace.admin.v1 import people_pb2 as pb
from headrace.admin.v1.people_pb2_grpc import PersonServiceServicer
from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.people.messages import person_message
from headrace_control.api.resource_names import id_in
from headrace_control.api.tenancy.rules import actor
from headrace_control.base.records import BY_PROVIDER, Member, Person
from headrace_control.store import PageOptions

_MAX_NAME = 200
ME = "me"


class PersonService(PersonServiceServicer):
    """Only operators of the mesh may call it, but that a person may see themself."""

    def __init__(self, parts: Parts) -> None:
        self._store = parts.store

    async def CreatePerson(self, request: pb.CreatePersonRequest, context: Context) -> pb.Person:
        given = request.person
        if not given.email:
            raise InvalidRequest("person.email is empty", field="person.email")
        name = display_name(given.display_name, field="person.display_name")
        new = Person("", email=given.email, display_name=name)
        return person_message(await self._store.people.create(new, by=actor(current_caller())))

    async def GetPerson(self, request: pb.GetPersonRequest, context: Context) -> pb.Person:
        person_id, caller = id_in(request.name, "people/{person}"), current_caller()
        if person_id == ME:
            person_id = caller.person
        if not person_id or not (caller.is_operator or person_id == caller.person):
            raise ResourceNotFound(f"person {request.name.partition('/')[2]} not found")
        person = await self._store.people.get(person_id)
        return person_message(person, await self._memberships(person_id, caller))

    async def ListPeople(
        self, request: pb.ListPeopleRequest, context: Context
    ) -> pb.ListPeopleResponse:
        page = await self._store.people.list(PageOptions(request.page_size, request.page_token))
        people = map(person_message, page.items)
        return pb.ListPeopleResponse(people=people, next_page_token=page.next_page_token)

    async def DeactivatePerson(
        self, request: pb.DeactivatePersonRequest, context: Context
    ) -> pb.Person:
        person_id = id_in(request.name, "people/{person}")
        by = actor(current_caller())
        return person_message(await self._store.people.deactivate(person_id, by=by))

    async def ActivatePerson(
        self, request: pb.ActivatePersonRequest, context: Context
    ) -> pb.Person:
        person_id = id_in(request.name, "people/{person}")
        by = actor(current_caller())
        return person_message(await self._store.people.activate(person_id, by=by))

    async def _memberships(self, person_id: str, caller: Caller) -> tuple[Member, ...]:
        """Return those that the caller may see: all, only of one who proved to be the person."""
        found = await self._store.people.memberships(person_id)
        if caller.is_operator:
            return found
        if caller.session_id:
            session = await self._store.sessions.get(caller.session_id)
            if session.opened_by == BY_PROVIDER:
                return found
        return tuple(each for each in found if each.tenant == caller.tenant)


def display_name(text: str, *, field: str) -> str:
    """
    Raises:
        InvalidRequest: it is too long, or has line ends and the like.
    """
    if len(text) > _MAX_NAME or not text.isprintable():
        raise InvalidRequest(
            f"{field} has {len(text)} characters; it may have up to {_MAX_NAME} printable ones",
            field=field,
        )
    return text.strip()

"""SessionService: sessions of people in browsers."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

from collections.abc import AsyncIterator

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from headrace.admin.v1 import sessions_pb2 as pb
from headrace.admin.v1.sessions_pb2_grpc import SessionServiceServicer
from headrace.auth.caller import Caller
from headrace.errors import FailedPrecondition, PermissionDenied, ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.people.http_replies import send_json
from headrace_control.api.people.messages import caller_message, session_message
from headrace_control.api.people.opener import SessionOpener
from headrace_control.api.people.person_service import ME
from headrace_control.api.people.provider_sign_in import ProviderSignIn
from headrace_control.api.resource_names import id_in
from headrace_control.api.tenancy.rules import actor
from headrace_control.base.records import BY_KEY, BY_PROVIDER, Session
from headrace_control.store import PageOptions


class SessionService(SessionServiceServicer):
    """A caller sees and ends the own sessions, and administrators those of their tenants."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._store = parts, parts.store
        self._opener = SessionOpener(parts)
        self._sign_in = ProviderSignIn(parts, self._opener)

    async def CreateSession(
        self, request: pb.CreateSessionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        self._opener.require_sessions()
        self._opener.refuse_other_sites(context)
        caller = self._parts.access.caller_with_key(request.key, context)
        new = Session(
            "",
            "",
            caller.tenant,
            person=caller.person,
            key_id=caller.key_id,
            opened_by=BY_KEY,
        )
        opened = await self._opener.open(context, new)
        message = session_message(opened.session)
        yield await send_json(context, message, [("set-cookie", opened.cookie)])

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        session_id, caller = id_in(request.name, "sessions/{session}"), current_caller()
        if session_id == ME and not caller.session_id:
            return caller_message(caller)
        return session_message(await self._visible(session_id, caller))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        caller = current_caller()
        options = PageOptions(request.page_size, request.page_token)
        sessions = self._store.sessions
        if request.all:
            if not caller.may_administer(caller.tenant):
                raise PermissionDenied(
                    "all sessions are for administrators: this needs the scope admin:*"
                )
            tenants = None if caller.is_operator else [caller.tenant]
            page = await sessions.list(tenants=tenants, options=options)
        elif caller.person:
            tenants = None if await self._is_proven(caller) else [caller.tenant]
            page = await sessions.list(person=caller.person, tenants=tenants, options=options)
        elif caller.key_id:
            page = await sessions.list(key_id=caller.key_id, options=options)
        else:
            return pb.ListSessionsResponse()
        found = map(session_message, page.items)
        return pb.ListSessionsResponse(sessions=found, next_page_token=page.next_page_token)

    async def DeleteSession(
        self, request: pb.DeleteSessionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        session_id, caller = id_in(request.name, "sessions/{session}"), current_caller()
        is_own = session_id in (ME, caller.session_id)
        if not is_own or caller.session_id:
            session = await self._visible(session_id, caller)
            await self._store.sessions.delete(session.session_id, by=actor(caller))
        cleared = [("set-cookie", self._opener.cleared_cookie(context))] if is_own else []
        yield await send_json(context, Empty(), cleared)

    async def SwitchTenant(self, request: pb.SwitchTenantRequest, context: Context) -> pb.Session:
        caller, tenant = current_caller(), id_in(request.tenant, "tenants/{tenant}", field="tenant")
        if not caller.session_id:
            raise FailedPrecondition("the call has no session: sign in to switch its tenant")
        found = await self._store.people.memberships(caller.person) if caller.person else ()
        is_member = tenant in [each.tenant for each in found]
        if not is_member or (await self._store.tenants.get(tenant)).disabled:
            raise ResourceNotFound(f"tenant {tenant} not found")
        return session_message(
            await self._store.sessions.switch_tenant(caller.session_id, tenant, by=actor(caller))
        )

    async def BeginSignIn(
        self, request: pb.BeginSignInRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        yield await self._sign_in.begin(request, context)

    async def FinishSignIn(
        self, request: pb.FinishSignInRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        yield await self._sign_in.finish(request, context)

    async def _visible(self, session_id: str, caller: Caller) -> Session:
        """Return a session, if the caller may see and end it.

        Raises:
            ResourceNotFound: there is none, or it is another's.
        """
        if session_id == ME:
            session_id = caller.session_id
        try:
            session = await self._store.sessions.get(session_id)
        except ResourceNotFound:
            session = None
        if session is None or not await self._may_see(session, caller):
            raise ResourceNotFound(f"session {session_id} not found")
        return session

    async def _may_see(self, session: Session, caller: Caller) -> bool:
        if caller.may_administer(session.tenant) or session.session_id == caller.session_id:
            return True
        if caller.person:
            is_here = session.tenant == caller.tenant
            return session.person == caller.person and (is_here or await self._is_proven(caller))
        return bool(caller.key_id) and session.key_id == caller.key_id

    async def _is_proven(self, caller: Caller) -> bool:
        """Return whether the provider has proved who the caller is, beyond the tenant."""
        if not caller.session_id:
            return False
        session = await self._store.sessions.get(caller.session_id)
        return session.opened_by == BY_PROVIDER

"""/ui/api/session: who uses the page. Signing in and out is control's, /v2/admin/sessions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace_web.http.api.calls import Parts
from headrace_web.http.replies import errors_sent, reply


class SessionApi:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [Route("/ui/api/session", errors_sent(self.get), methods=["GET"])]

    async def get(self, request: Request) -> Response:
        """Return the caller; 401 for whoever has to sign in."""
        caller = self._parts.caller(request)
        return reply(
            {
                "tenant": caller.tenant,
                "person": caller.person,
                "role": caller.role,
                "scopes": sorted(caller.scopes),
                "is_operator": caller.is_operator,
                "anonymous": caller.anonymous,
            }
        )

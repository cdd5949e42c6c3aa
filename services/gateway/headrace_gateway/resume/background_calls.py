"""Calls that start a background request and return before it has ended."""

from __future__ import annotations

from headrace.errors import GatewayUnreachable, InvalidRequest, RequestExists, RequestNotFound
from headrace.v1.requests_pb2 import Request
from headrace_gateway.base.calls import Call
from headrace_gateway.output.resumer import name_taken, same_request
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.idempotency import HEADER, idempotency_key, named_by_key
from headrace_gateway.resume.ports import Requests
from headrace_gateway.submit.submitter import Submitter


class BackgroundRequests:
    def __init__(self, submitter: Submitter, requests: Requests) -> None:
        self._submitter, self._requests = submitter, requests

    async def begin(self, requested: GenerationRequest, call: Call, *, repeatable: bool) -> Request:
        """Returns as soon as it is stored. `repeatable`: its caller has chosen its id, so this may
        be a call that was made before, whose answer got lost.

        Raises:
            RequestExists: the id is another request's.
            HeadraceError: it was refused; nothing is held.
        """
        if (key := idempotency_key(call)) is not None:
            if repeatable:
                raise InvalidRequest(
                    f"request_id names the request already; leave it or {HEADER} out", field=HEADER
                )
            requested = named_by_key(requested, key)
            repeatable = True
        if repeatable and (same := await self._begun(requested)) is not None:
            return same
        try:
            answer, request = await self._submitter.open(requested)
        except RequestExists:
            # The same call has come here twice at once.
            if not repeatable or (same := await self._begun(requested)) is None:
                raise
            return same
        async with answer:
            pass  # Its gateway reads it: this reader may leave.
        return await self._requests.opened(request.key)

    async def _begun(self, requested: GenerationRequest) -> Request | None:
        request = await self._submitter.repeated(requested)
        try:
            found, record = await self._requests.look(request.key)
        except (RequestNotFound, GatewayUnreachable):
            # Where no leader can say so now, the next one lets the first of two go on.
            return None
        seeded = requested.seed is not None
        if not (record.detached and same_request(record, request, seeded)):
            raise name_taken(requested.request_id, field=requested.name_of("request_id"))
        return found

"""Pure room: ids by which calls name requests that they did not open."""

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace_gateway.base.calls import Call
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.request_keys import request_key
from headrace_gateway.request.generation_request import NAME


def key_of_request(request_id: str, call: Call) -> str:
    """Return the key of the caller's request of this id.

    Raises:
        InvalidRequest: no request can have this id, or the call names no valid caller.
    """
    # Why: keys become subjects of the bus, where dots and stars mean something.
    if not NAME.fullmatch(request_id):
        raise InvalidRequest(
            f"request_id {quoted(request_id)} is not 1 to 64 of A-Z a-z 0-9 _ -",
            field="request_id",
        )
    return request_key(call.caller.tenant, request_id)

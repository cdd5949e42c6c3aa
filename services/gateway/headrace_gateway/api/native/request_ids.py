"""Pure room: ids by which calls name requests that they did not open."""

from __future__ import annotations

from headrace.request_keys import request_key
from headrace_gateway.base.calls import Call
from headrace_gateway.checks.validation import check_request_id


def key_of_request(request_id: str, call: Call) -> str:
    """Return the key of the caller's request of this id.

    Raises:
        InvalidRequest: no request can have this id, or the call names no valid caller.
    """
    # Why: keys become subjects of the bus, where dots and stars mean something.
    check_request_id(request_id)
    return request_key(call.caller.tenant, request_id)

"""Pure room: ids that callers name requests by."""

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace_gateway.base.quoting import quoted
from headrace_gateway.request.generation_request import NAME


def validate_request_id(request_id: str) -> str:
    """Why: ids become subjects of the bus, where dots and stars mean something."""
    if not NAME.fullmatch(request_id):
        raise InvalidRequest(
            f"request_id {quoted(request_id)} is not 1 to 64 of A-Z a-z 0-9 _ -",
            field="request_id",
        )
    return request_id

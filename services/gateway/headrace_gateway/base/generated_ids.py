"""Pure: ids that gateways make for requests, which name the lane that a request is in.

So a gateway that does not hold a request sends its query to one leader, not to those of all models.
An id is drawn when a call comes, and gets its lane when its model is known:

    >>> drawn = draw_id("0123456789abcdef0123")
    >>> drawn, with_lane("valley", drawn)
    ('req_000000000123456789abcdef0123', 'req_00mj75hu0123456789abcdef0123')

`headrace.request_keys` reads the lane again.
"""

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace.model_names import lane_id
from headrace.request_keys import CELL, lane_in
from headrace_gateway.base.quoting import quoted

RANDOM_CHARACTERS = 20
_LANE_CHARACTERS = 6
_NO_LANE = "0" * _LANE_CHARACTERS
"""No lane id has a zero."""


def draw_id(random: str) -> str:
    """Return the id of a call whose model is not known yet. `random`: 20 of 0-9 and a-f."""
    return f"req_{CELL}{_NO_LANE}{random}"


def with_lane(model: str, request_id: str) -> str:
    """Return the id with the model's lane in it, if it was drawn; a caller's own stays as it is.

    Raises:
        InvalidRequest: the client chose one that names another model's lane.
    """
    lane = lane_in(request_id)
    here = lane_id(model)[:_LANE_CHARACTERS]
    if lane == _NO_LANE:
        return request_id.replace(CELL + _NO_LANE, CELL + here, 1)
    if lane not in (None, here):
        raise InvalidRequest(
            f"request_id {quoted(request_id)} is made as ids of another model's requests are;"
            " choose another",
            field="request_id",
        )
    return request_id

"""Pure: the key of a request, by which the mesh knows it: its tenant's name and its id.

Callers see ids; records, results, look-ups and the scheduler have keys, so that equal ids of two
tenants are two requests. A request of the tenant `default` has its id as its key:

    >>> request_key("team-a", "mine"), request_key("default", "mine")
    ('team-a/mine', 'mine')
    >>> public_id("team-a/mine"), public_id("mine")
    ('mine', 'mine')

An id that a gateway has made names the lane that the request is in; so does one that it has got
from there, as of one prompt of several, or of a dead letter that was resent:

    >>> candidate_models("req_00mj75hu0123456789abcdef0123", ["delta", "valley"])
    ['valley']
    >>> candidate_models("req_00mj75hu0123456789abcdef0123-1-resent-7", ["delta", "valley"])
    ['valley']
    >>> candidate_models("an id of the caller's own", ["delta", "valley"])
    ['delta', 'valley']
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from headrace.auth.scopes import DEFAULT_TENANT
from headrace.model_names import lane_id

CELL = "00"
"""Of the mesh that runs the request; there is one."""
_GENERATED = re.compile(
    rf"req_{CELL}([a-z2-7]{{6}}|0{{6}})[0-9a-f]{{20}}(-[0-9]+)?(-resent-[0-9]+)?"
)


def request_key(tenant: str, request_id: str) -> str:
    """Return the key. Neither a tenant's name nor an id has a slash."""
    return request_id if tenant == DEFAULT_TENANT else f"{tenant}/{request_id}"


def public_id(key: str) -> str:
    """Return the id that the request's caller knows it by."""
    return key.rpartition("/")[2]


def tenant_of(key: str) -> str:
    """Return the name of the request's tenant."""
    return key.rpartition("/")[0] or DEFAULT_TENANT


def lane_in(request_id: str) -> str | None:
    """Return the start of the lane id that a generated id has, `000000` before its model is known;
    None of an id that a caller has chosen."""
    generated = _GENERATED.fullmatch(request_id)
    return generated[1] if generated else None


def candidate_models(request_id: str, models: Iterable[str]) -> list[str]:
    """Return the models whose leaders may have a request of this id."""
    lane, known = lane_in(request_id), list(models)
    matching = [model for model in known if lane_id(model).startswith(lane)] if lane else []
    return matching or known

"""Pure: the key of a request, by which the mesh knows it: its tenant's name and its id.

Callers see ids; records, results, look-ups and the scheduler have keys, so that equal ids of two
tenants are two requests. A request of the tenant `default` has its id as its key:

    >>> request_key("team-a", "mine"), request_key("default", "mine")
    ('team-a/mine', 'mine')
    >>> public_id("team-a/mine"), public_id("mine")
    ('mine', 'mine')
"""

from __future__ import annotations

from headrace_gateway.base.callers import DEFAULT_TENANT


def request_key(tenant: str, request_id: str) -> str:
    """Return the key. Neither a tenant's name nor an id has a slash (`callers`, `NAME`)."""
    return request_id if tenant == DEFAULT_TENANT else f"{tenant}/{request_id}"


def public_id(key: str) -> str:
    """Return the id that the request's caller knows it by."""
    return key.rpartition("/")[2]

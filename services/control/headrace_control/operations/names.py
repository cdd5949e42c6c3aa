"""Pure: the names of requests, workers and dead letters in the API.

>>> request_name("team-a/mine"), request_name("mine")
('tenants/team-a/requests/mine', 'tenants/default/requests/mine')
>>> key_of_request("tenants/team-a/requests/mine"), tenant_of_parent("tenants/team-a")
('team-a/mine', 'team-a')
"""

from __future__ import annotations

import re

from headrace.errors import InvalidRequest
from headrace.request_keys import public_id, request_key, tenant_of

_TENANT = r"tenants/([A-Za-z0-9._-]{1,64})"
_PARENT = re.compile(_TENANT)
_REQUEST = re.compile(rf"{_TENANT}/requests/([A-Za-z0-9_-]{{1,64}})")
_WORKER = re.compile(r"workers/(.{1,256})", re.DOTALL)
_DEAD_LETTER = re.compile(r"deadLetters/([1-9][0-9]{0,18})")


def request_name(key: str) -> str:
    return f"tenants/{tenant_of(key)}/requests/{public_id(key)}"


def key_of_request(name: str) -> str:
    """Return the key of a request. Raises InvalidRequest, as the following ones."""
    tenant, request_id = _parts(_REQUEST, name, "tenants/{tenant}/requests/{request}")
    return request_key(tenant, request_id)


def tenant_of_parent(parent: str) -> str:
    (tenant,) = _parts(_PARENT, parent, "tenants/{tenant}", field="parent")
    return tenant


def worker_of(name: str) -> str:
    (worker,) = _parts(_WORKER, name, "workers/{name}")
    return worker


def dead_letter_name(sequence: int) -> str:
    return f"deadLetters/{sequence}"


def sequence_of(name: str) -> int:
    (sequence,) = _parts(_DEAD_LETTER, name, "deadLetters/{number}")
    return int(sequence)


def _parts(
    pattern: re.Pattern[str], name: str, form: str, *, field: str = "name"
) -> tuple[str, ...]:
    if (found := pattern.fullmatch(name)) is None:
        raise InvalidRequest(f"{field} is {name[:200]!r}; its form is {form}", field=field)
    return found.groups()

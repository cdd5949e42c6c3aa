"""Pure: the caller of a call, and how urgent the requests of this caller may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.errors import InvalidRequest
from headrace.priorities import priority_name
from headrace.v1.common_pb2 import Priority
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings

DEFAULT_TENANT = "default"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made. There is one for each call; see `calls.call_of`."""

    tenant: str = DEFAULT_TENANT
    default_priority: Priority.ValueType = Priority.PRIORITY_STANDARD
    highest_priority: Priority.ValueType = Priority.PRIORITY_INTERACTIVE
    """Lower numbers are more urgent."""

    def priority(self, requested: Priority.ValueType, *, field_name: str) -> Priority.ValueType:
        """Return the requested priority, or the caller's default if it is unset.

        Raises:
            InvalidRequest: the caller may not request a priority so urgent.
        """
        if not requested:
            return max(self.default_priority, self.highest_priority)
        if requested < self.highest_priority:
            fact = (
                f"{field_name} requests {priority_name(requested)}; tenant {self.tenant} may"
                f" request {priority_name(self.highest_priority)} at most"
            )
            raise InvalidRequest(fact, field=field_name)
        return requested


def caller_of(headers: Mapping[str, str], settings: GatewaySettings) -> Caller:
    """Return the caller of a call with these headers.

    Raises:
        InvalidRequest: the tenant's header is malformed.
    """
    header = settings.tenant_header
    tenant = headers.get(header, DEFAULT_TENANT) if header else DEFAULT_TENANT
    if not _NAME.fullmatch(tenant):
        fact = f"header {header} is {quoted(tenant)}; it must be 1 to 64 of A-Z a-z 0-9 . _ -"
        raise InvalidRequest(fact, field=header)
    return Caller(
        tenant,
        _priority(settings.tenant_default_priority.get(tenant, "standard")),
        _priority(settings.tenant_highest_priority.get(tenant, "interactive")),
    )


def _priority(name: str) -> Priority.ValueType:
    return Priority.Value(f"PRIORITY_{name.upper()}")

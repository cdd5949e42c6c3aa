"""Pure room: who makes a call, and how urgent the requests of this caller may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Priority
from headrace_gateway.base.quoting import quoted

DEFAULT_TENANT = "default"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made. The server makes one for each call; see `calls.call_of`."""

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
                f"{field_name} asks for {_display(requested)}; tenant {self.tenant} may ask for "
                f"{_display(self.highest_priority)} at most"
            )
            raise InvalidRequest(fact, field=field_name)
        return requested


def _none() -> Mapping[str, Priority.ValueType]:
    return {}


@dataclass(frozen=True, slots=True)
class Tenants:
    """How tenants are configured; `settings.GatewaySettings` documents each field."""

    header: str = ""
    default_priorities: Mapping[str, Priority.ValueType] = field(default_factory=_none)
    highest_priorities: Mapping[str, Priority.ValueType] = field(default_factory=_none)

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Return the caller of a call with these headers.

        Raises:
            InvalidRequest: the tenant's header is malformed.
        """
        tenant = headers.get(self.header, DEFAULT_TENANT) if self.header else DEFAULT_TENANT
        if not _NAME.fullmatch(tenant):
            fact = (
                f"header {self.header} is {quoted(tenant)}; it must be 1 to 64 of A-Z a-z 0-9 . _ -"
            )
            raise InvalidRequest(fact, field=self.header)
        return Caller(
            tenant,
            self.default_priorities.get(tenant, Priority.PRIORITY_STANDARD),
            self.highest_priorities.get(tenant, Priority.PRIORITY_INTERACTIVE),
        )


def _display(priority: Priority.ValueType) -> str:
    return Priority.Name(priority).removeprefix("PRIORITY_").lower()

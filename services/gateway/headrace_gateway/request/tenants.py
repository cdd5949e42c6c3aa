"""On whose behalf a call is made, and how urgent what they ask for may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Priority
from headrace_gateway.base.quoting import quoted

DEFAULT_TENANT = "default"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STANDARD = Priority.PRIORITY_STANDARD


def _none() -> Mapping[str, Priority.ValueType]:
    return {}


@dataclass(frozen=True, slots=True)
class Tenants:
    """What an operator has said of them; `settings.GatewaySettings` documents each."""

    header: str = ""
    default_priorities: Mapping[str, Priority.ValueType] = field(default_factory=_none)
    highest_priorities: Mapping[str, Priority.ValueType] = field(default_factory=_none)

    def of(self, headers: Mapping[str, str]) -> str:
        """Whose call it is; "default" where no header says so.

        Raises:
            InvalidRequest: the header is no name.
        """
        if not self.header or self.header not in headers:
            return DEFAULT_TENANT
        if not _NAME.fullmatch(name := headers[self.header]):
            fact = (
                f"header {self.header} is {quoted(name)}; it must be 1 to 64 of A-Z a-z 0-9 . _ -"
            )
            raise InvalidRequest(fact, field=self.header)
        return name

    def priority(
        self, tenant: str, asked: Priority.ValueType, *, field_name: str
    ) -> Priority.ValueType:
        """What is asked for, or the tenant's own where nothing is.

        Raises:
            InvalidRequest: the tenant may not ask for something so urgent.
        """
        highest = self.highest_priorities.get(tenant, Priority.PRIORITY_INTERACTIVE)
        if not asked:
            # Lower numbers are more urgent: one that may not have its default has its highest.
            return max(self.default_priorities.get(tenant, _STANDARD), highest)
        if asked < highest:
            fact = (
                f"{field_name} asks for {_spoken(asked)}; tenant {tenant} may ask for "
                f"{_spoken(highest)} at most"
            )
            raise InvalidRequest(fact, field=field_name)
        return asked


def _spoken(priority: Priority.ValueType) -> str:
    return Priority.Name(priority).removeprefix("PRIORITY_").lower()

"""The caller of a call, and how urgent the requests of this caller may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Priority
from headrace_gateway.base.callers import caller_of
from headrace_gateway.base.calls import call_of
from headrace_gateway.base.settings import GatewaySettings

WITH_HEADER = GatewaySettings(tenant_header="x-tenant")
INTERACTIVE, STANDARD, BULK = (
    Priority.PRIORITY_INTERACTIVE,
    Priority.PRIORITY_STANDARD,
    Priority.PRIORITY_BULK,
)
UNSET = Priority.PRIORITY_UNSPECIFIED


def test_without_a_trusted_header_every_caller_is_of_one_tenant() -> None:
    assert caller_of({"x-tenant": "a"}, GatewaySettings()).tenant == "default"
    assert caller_of({}, WITH_HEADER).tenant == "default"


def test_the_trusted_header_names_the_tenant() -> None:
    assert caller_of({"x-tenant": "a.b-C_9"}, WITH_HEADER).tenant == "a.b-C_9"


@pytest.mark.parametrize("name", ["", "a b", "a,b", "ä", "x" * 65, "a\n"])
def test_a_malformed_header_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 64 of") as refused:
        caller_of({"x-tenant": name}, WITH_HEADER)
    assert refused.value.field == "x-tenant"


def test_a_header_that_is_sent_twice_is_refused() -> None:
    metadata = (("x-tenant", "a"), ("x-tenant", "b"), ("x-bin", b"1"))
    context: Any = SimpleNamespace(
        time_remaining=lambda: None, invocation_metadata=lambda: metadata
    )
    headers = call_of(cast(Any, context)).headers
    with pytest.raises(InvalidRequest, match="'a,b'"):
        caller_of(headers, WITH_HEADER)


def test_a_request_without_a_priority_gets_the_default_of_its_tenant() -> None:
    settings = GatewaySettings(
        tenant_header="x-tenant", tenant_default_priority={"nightly": "bulk"}
    )
    nightly, other = (caller_of({"x-tenant": name}, settings) for name in ("nightly", "other"))
    assert nightly.priority(UNSET, field_name="priority") == BULK
    assert nightly.priority(INTERACTIVE, field_name="priority") == INTERACTIVE
    assert other.priority(UNSET, field_name="priority") == STANDARD


def test_a_priority_above_the_highest_of_the_tenant_is_refused() -> None:
    settings = GatewaySettings(
        tenant_header="x-tenant",
        tenant_highest_priority={"nightly": "bulk", "team": "standard"},
    )
    nightly, team = (caller_of({"x-tenant": name}, settings) for name in ("nightly", "team"))
    assert nightly.priority(UNSET, field_name="priority") == BULK
    assert team.priority(STANDARD, field_name="priority") == STANDARD
    with pytest.raises(InvalidRequest, match="tenant team may request standard at most") as refused:
        team.priority(INTERACTIVE, field_name="service_tier")
    assert refused.value.field == "service_tier"

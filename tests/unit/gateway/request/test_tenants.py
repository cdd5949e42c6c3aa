"""Whose call it is, and how urgent it may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Priority
from headrace_gateway.base.calls import call_of
from headrace_gateway.request.tenants import Tenants

HEADED = Tenants(header="x-tenant")
INTERACTIVE, STANDARD, BULK = (
    Priority.PRIORITY_INTERACTIVE,
    Priority.PRIORITY_STANDARD,
    Priority.PRIORITY_BULK,
)
UNSET = Priority.PRIORITY_UNSPECIFIED


def test_without_a_trusted_header_everybody_is_one_tenant() -> None:
    assert Tenants().of({"x-tenant": "a"}) == "default"
    assert HEADED.of({}) == "default"


def test_the_trusted_header_names_the_tenant() -> None:
    assert HEADED.of({"x-tenant": "a.b-C_9"}) == "a.b-C_9"


@pytest.mark.parametrize("name", ["", "a b", "a,b", "ä", "x" * 65, "a\n"])
def test_a_header_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 64 of") as refused:
        HEADED.of({"x-tenant": name})
    assert refused.value.field == "x-tenant"


def test_a_header_that_comes_twice_names_nobody() -> None:
    metadata = (("x-tenant", "a"), ("x-tenant", "b"), ("x-bin", b"1"))
    context: Any = SimpleNamespace(
        time_remaining=lambda: None, invocation_metadata=lambda: metadata
    )
    headers = call_of(cast(Any, context)).headers
    with pytest.raises(InvalidRequest, match="'a,b'"):
        HEADED.of(headers)


def test_who_names_no_priority_gets_the_tenants() -> None:
    tenants = Tenants(default_priorities={"nightly": BULK})
    assert tenants.priority("nightly", UNSET, field_name="priority") == BULK
    assert tenants.priority("nightly", INTERACTIVE, field_name="priority") == INTERACTIVE
    assert tenants.priority("other", UNSET, field_name="priority") == STANDARD


def test_a_tenant_asks_for_nothing_more_urgent_than_it_may() -> None:
    tenants = Tenants(highest_priorities={"nightly": BULK, "team": STANDARD})
    assert tenants.priority("nightly", UNSET, field_name="priority") == BULK
    assert tenants.priority("team", STANDARD, field_name="priority") == STANDARD
    with pytest.raises(InvalidRequest, match="tenant team may ask for standard at most") as refused:
        tenants.priority("team", INTERACTIVE, field_name="service_tier")
    assert refused.value.field == "service_tier"

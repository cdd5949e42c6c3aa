"""What a caller may do, and how urgent its requests may be."""

from __future__ import annotations

import pytest

from headrace.auth.caller import Caller
from headrace.auth.scopes import ADMIN, GENERATE, MESH_TENANT
from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Priority

INTERACTIVE, STANDARD, BULK = (
    Priority.PRIORITY_INTERACTIVE,
    Priority.PRIORITY_STANDARD,
    Priority.PRIORITY_BULK,
)
UNSET = Priority.PRIORITY_UNSPECIFIED


def test_a_request_without_a_priority_gets_the_default_of_its_tenant() -> None:
    nightly = Caller("nightly", default_priority=BULK)
    assert nightly.priority(UNSET, field_name="priority") == BULK
    assert nightly.priority(INTERACTIVE, field_name="priority") == INTERACTIVE
    assert Caller().priority(UNSET, field_name="priority") == STANDARD


def test_a_priority_above_the_highest_of_the_tenant_is_refused() -> None:
    nightly, team = Caller("nightly", highest_priority=BULK), Caller("team", STANDARD, STANDARD)
    assert nightly.priority(UNSET, field_name="priority") == BULK
    assert team.priority(STANDARD, field_name="priority") == STANDARD
    with pytest.raises(InvalidRequest, match="tenant team may request standard at most") as refused:
        team.priority(INTERACTIVE, field_name="service_tier")
    assert refused.value.field == "service_tier"


@pytest.mark.parametrize(
    ("caller", "is_operator", "may_administer_a"),
    [
        (Caller(MESH_TENANT, scopes=frozenset({ADMIN})), True, True),
        (Caller("a", scopes=frozenset({ADMIN})), False, True),
        (Caller("b", scopes=frozenset({ADMIN})), False, False),
        (Caller(MESH_TENANT, scopes=frozenset({GENERATE})), False, False),
        (Caller(anonymous=True), True, True),
    ],
)
def test_administrators_of_the_meshs_own_tenant_operate_it(
    caller: Caller, is_operator: bool, may_administer_a: bool
) -> None:
    assert caller.is_operator is is_operator
    assert caller.may_administer("a") is may_administer_a


def test_a_model_may_be_used_by_any_of_its_names() -> None:
    caller = Caller(models=frozenset({"gpt-4o"}))
    assert caller.may_use("valley", "gpt-4o")
    assert not caller.may_use("valley")
    assert not Caller(models=frozenset()).may_use("valley")
    assert Caller().may_use("valley")

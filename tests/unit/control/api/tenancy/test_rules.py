"""Who may make, see and change which keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.auth.caller import Caller
from headrace.auth.scopes import ADMIN, ROLE_SCOPES
from headrace.errors import InvalidRequest, PermissionDenied, ResourceNotFound
from headrace_control.api.tenancy import rules
from headrace_control.base.records import Key, Limits, ModelLimits

OPERATOR = Caller("headrace", scopes=frozenset({ADMIN}), key_id="root")
ADMINISTRATOR = Caller("acme", scopes=frozenset({ADMIN}), key_id="k0")
MEMBER = Caller("acme", scopes=ROLE_SCOPES["member"], person="ann", session_id="s", role="member")
MEMBERS_KEY = Caller(
    "acme",
    scopes=frozenset({"generate"}),
    models=frozenset({"valley"}),
    person="ann",
    key_id="k1",
)
TENANTS_KEY = Caller("acme", scopes=frozenset({"generate"}), key_id="k2")
ANONYMOUS = Caller(anonymous=True)

ANNS = Key("k1", "acme", person="ann", scopes=("generate",), models=("valley",))
BOBS = replace(ANNS, key_id="k3", person="bob")
TENANTS = Key("k2", "acme", scopes=("generate",), models=("*",))
FOREIGN = replace(ANNS, key_id="k4", tenant="other")


def test_who_sees_which_key() -> None:
    keys = (ANNS, BOBS, TENANTS, FOREIGN)
    seen = {
        name: [key.key_id for key in keys if rules.may_see(caller, key)]
        for name, caller in (
            ("operator", OPERATOR),
            ("anonymous", ANONYMOUS),
            ("administrator", ADMINISTRATOR),
            ("member", MEMBER),
            ("member's key", MEMBERS_KEY),
            ("tenant's key", TENANTS_KEY),
        )
    }
    assert seen == {
        "operator": ["k1", "k3", "k2", "k4"],
        "anonymous": ["k1", "k3", "k2", "k4"],
        "administrator": ["k1", "k3", "k2"],
        "member": ["k1"],
        "member's key": ["k1"],
        "tenant's key": ["k2"],
    }


def test_a_key_changes_no_key_without_administering_not_even_itself() -> None:
    rules.require_change(ADMINISTRATOR, BOBS, "revoking")
    rules.require_change(MEMBER, ANNS, "revoking")
    for caller, key in ((TENANTS_KEY, TENANTS), (MEMBER, TENANTS), (MEMBER, BOBS)):
        with pytest.raises(PermissionDenied):
            rules.require_change(caller, key, "revoking")


def test_another_tenant_is_not_found() -> None:
    rules.require_tenant(OPERATOR, "other")
    rules.require_tenant(TENANTS_KEY, "acme")
    for caller in (ADMINISTRATOR, MEMBER, TENANTS_KEY):
        with pytest.raises(ResourceNotFound, match="tenant other not found"):
            rules.require_tenant(caller, "other")


def test_whose_a_new_key_is() -> None:
    assert rules.key_owner(ADMINISTRATOR, "acme", "", "") == ""
    assert rules.key_owner(OPERATOR, "acme", "", "") == ""
    assert rules.key_owner(MEMBER, "acme", "", "member") == "ann"
    assert rules.key_owner(MEMBER, "acme", "ann", "member") == "ann"
    for role in ("viewer", ""):
        with pytest.raises(PermissionDenied):
            rules.key_owner(MEMBER, "acme", "", role)
    with pytest.raises(PermissionDenied):
        rules.key_owner(TENANTS_KEY, "acme", "", "")
    for caller in (MEMBER, ADMINISTRATOR, OPERATOR):
        with pytest.raises(InvalidRequest, match="another person"):
            rules.key_owner(caller, "acme", "bob", "member")


def test_no_key_may_do_more_than_its_maker() -> None:
    rules.check_grant(MEMBER, replace(ANNS, scopes=("generate", "embed"), models=("*",)), None)
    rules.check_grant(MEMBERS_KEY, ANNS, None)
    rules.check_grant(ADMINISTRATOR, replace(TENANTS, scopes=(ADMIN,)), None)
    for caller, key, field in (
        (MEMBER, replace(ANNS, scopes=(ADMIN,)), "key.scopes"),
        (MEMBERS_KEY, replace(ANNS, scopes=("embed",)), "key.scopes"),
        (MEMBERS_KEY, replace(ANNS, models=("*",)), "key.models"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            rules.check_grant(caller, key, None)
        assert refused.value.field == field


def test_a_key_with_limits_makes_none_without_them() -> None:
    limits, of_model = Limits(requests_per_minute=60), Limits(tokens_per_day=9)
    own = replace(ANNS, limits=limits, model_limits=(ModelLimits("a", of_model),))
    rules.check_grant(MEMBERS_KEY, own, own)
    fewer = Limits(requests_per_minute=5, requests_per_day=1)
    rules.check_grant(MEMBERS_KEY, replace(own, limits=fewer), own)
    for wider, field in (
        (replace(own, limits=Limits()), "key.limits.requests_per_minute"),
        (replace(own, limits=Limits(61)), "key.limits.requests_per_minute"),
        (replace(own, model_limits=()), "key.model_limits[a].tokens_per_day"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            rules.check_grant(MEMBERS_KEY, wider, own)
        assert refused.value.field == field
    rules.check_grant(ADMINISTRATOR, replace(own, limits=Limits()), own)


def test_a_role_that_may_not_administer_grants_no_administration() -> None:
    # Such a caller cannot come from a table; the rule holds all the same.
    odd = replace(MEMBER, scopes=frozenset({ADMIN, "generate"}), tenant="other")
    with pytest.raises(InvalidRequest):
        rules.check_grant(odd, replace(ANNS, scopes=(ADMIN,)), None)


def test_no_key_gets_the_secret_of_one_that_may_do_more() -> None:
    rules.require_secret(MEMBERS_KEY, ANNS, None)
    wider = replace(ANNS, key_id="k9", scopes=("generate", "embed"))
    with pytest.raises(PermissionDenied, match="may do more than the caller"):
        rules.require_secret(MEMBERS_KEY, wider, None)

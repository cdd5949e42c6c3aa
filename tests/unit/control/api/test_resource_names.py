"""Names of resources."""

from __future__ import annotations

import pytest

from headrace.errors import InvalidRequest
from headrace_control.api.resource_names import id_in, ids_in

MEMBER = "tenants/{tenant}/members/{person}"


def test_a_name_has_the_ids_of_its_pattern() -> None:
    assert ids_in("tenants/acme/members/8f3c", MEMBER) == ("acme", "8f3c")
    assert id_in("people/8f3c", "people/{person}") == "8f3c"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tenants/acme",
        "tenants/acme/members/",
        "tenants//members/8f3c",
        "people/acme/members/x",
        "tenants/acme/members/8f3c/",
        "/tenants/acme/members/8f3c",
        "tenants/a/b/members/x",
        "tenants/a\0/members/x",
        "tenants/a\nb/members/x",
        f"tenants/{'a' * 400}/members/x",
    ],
)
def test_another_name_is_refused_with_the_pattern(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"parent is .*must be like tenants/\{tenant\}"):
        ids_in(name, MEMBER, field="parent")

"""Names of the API lead to keys, and back; what is none is refused."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest

from headrace.errors import InvalidRequest
from headrace_control.operations import names


def test_the_examples_hold() -> None:
    assert doctest.testmod(names).failed == 0


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (names.key_of_request, "requests/mine"),
        (names.key_of_request, "tenants/a/requests/b/c"),
        (names.key_of_request, "tenants/a/requests/b.c"),
        (names.key_of_request, "tenants/a/requests/*"),
        (names.key_of_request, "tenants/a/requests/>"),
        (names.key_of_request, "tenants/a/requests/b\n"),
        (names.key_of_request, "tenants/a b/requests/c"),
        (names.tenant_of_parent, "tenants/"),
        (names.tenant_of_parent, "tenants/-"[:7]),
        (names.worker_of, "workers/"),
        (names.worker_of, "w"),
        (names.sequence_of, "deadLetters/0"),
        (names.sequence_of, "deadLetters/-1"),
        (names.sequence_of, "deadLetters/99999999999999999999"),
    ],
)
def test_a_name_of_another_form_is_refused(read: Callable[[str], object], name: str) -> None:
    with pytest.raises(InvalidRequest, match="its form is"):
        read(name)

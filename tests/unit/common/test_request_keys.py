"""Keys of requests: the tenant and the id in one string."""

from __future__ import annotations

import doctest
import re

from hypothesis import given
from hypothesis import strategies as st

import headrace.request_keys
from headrace.bus import subjects
from headrace.request_keys import public_id, request_key

TENANTS = st.from_regex(re.compile(r"[A-Za-z0-9._-]{1,64}"), fullmatch=True)
IDS = st.from_regex(re.compile(r"[A-Za-z0-9_-]{1,64}"), fullmatch=True)


def test_the_examples_hold() -> None:
    assert doctest.testmod(headrace.request_keys).failed == 0


@given(TENANTS, IDS, TENANTS, IDS)
def test_two_keys_and_their_subjects_are_equal_only_where_tenant_and_id_are(
    tenant: str, request_id: str, other_tenant: str, other_id: str
) -> None:
    key, other = request_key(tenant, request_id), request_key(other_tenant, other_id)
    same = (tenant, request_id) == (other_tenant, other_id)
    assert (key == other) == same
    assert (subjects.result(key) == subjects.result(other)) == same
    assert public_id(key) == request_id
    assert len(subjects.result(key).split(".")) == 3, "one part of a subject, whatever is in it"

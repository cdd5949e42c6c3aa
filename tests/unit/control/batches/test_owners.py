"""Whether a batch's owner may still use the mesh."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.auth.tables import Key, Tenant
from headrace.clock import SystemClock
from headrace.internal.v1.access_pb2 import KeyRow, TenantRow
from headrace_control.base.batches import Owner
from headrace_control.batches.owners import Owners

KEY = KeyRow(key_id="k", tenant="acme", scopes=["batches", "generate"], models=["*"])
OWNER = Owner("acme", "k", scopes=("batches", "generate"), models=("a",))


def why_not(key: KeyRow | None, owner: Owner = OWNER) -> str:
    tables: Any = SimpleNamespace(
        not_ready_reason=lambda: None,
        tenant=lambda name: Tenant.parse(TenantRow(tenant=name).SerializeToString()),
        key=lambda key_id: None if key is None else Key.parse(key.SerializeToString()),
    )
    access: Any = SimpleNamespace(tables=tables, requires_keys=True)
    return Owners(access, SystemClock()).why_not(owner)


def key(**changes: Any) -> KeyRow:
    found = KeyRow()
    found.CopyFrom(KEY)
    for name, value in changes.items():
        found.ClearField(name)  # type: ignore[arg-type]  # one of the names
        found.MergeFrom(KeyRow(**{name: value}))
    return found


def test_a_key_that_may_do_as_much_or_more_keeps_its_batches() -> None:
    assert why_not(KEY) == ""
    assert why_not(key(models=["a", "b"], scopes=["batches", "embed", "generate"])) == ""


@pytest.mark.parametrize(
    "changed",
    [None, key(tenant="bolt"), key(expire_ms=1), key(models=["b"]), key(scopes=["batches"])],
    ids=["revoked", "another tenant's", "expired", "without the model", "without the scope"],
)
def test_a_key_that_may_do_less_than_when_it_created_a_batch_ends_it(
    changed: KeyRow | None,
) -> None:
    assert why_not(changed).startswith("The API key that created this batch")

"""Web acts for the callers that it has admitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from headrace.auth.check.edge import Context
from headrace.auth.check.forwarded import ForwardedGate, caller_metadata
from headrace.auth.tables import AccessTables
from headrace.errors import ControlUnavailable, PermissionDenied
from headrace.internal.v1.rows_pb2 import RowCaller
from headrace.v1.access_pb2 import Access

GENERATE = Access(scope="generate")
ANN = RowCaller(tenant="acme", person="ann", key_id="k1", scopes=["generate"], models=["valley"])


class _Tables:
    """Without a row; or those that are not read yet."""

    def __init__(self, problem: str | None = None) -> None:
        self._problem = problem

    def not_ready_reason(self) -> str | None:
        return self._problem

    def tenant(self, name: str) -> None:
        return None

    def key(self, key_id: str) -> None:
        return None


class _Call:
    def __init__(self, metadata: Sequence[tuple[str, Any]]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Sequence[tuple[str, Any]]:
        return self._metadata


def admit(
    *metadata: tuple[str, Any],
    access: Access | None = GENERATE,
    tables: _Tables | None = None,
    requires_keys: bool = False,
) -> Any:
    rows = cast("AccessTables", tables or _Tables())
    gate = ForwardedGate(rows, requires_keys=requires_keys)
    return gate.admit(access, {}, cast("Context", _Call(metadata)))


def test_a_call_is_on_behalf_of_the_caller_that_it_names() -> None:
    caller = admit(("x-other", "1"), caller_metadata(ANN))
    assert (caller.tenant, caller.person, caller.key_id) == ("acme", "ann", "k1")
    assert caller.may_use("valley")
    assert not caller.may_use("river")
    assert not caller.is_operator


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [caller_metadata(ANN), caller_metadata(ANN)],
        [("x-hr-caller-bin", b"\xff\xff")],
        [("x-hr-caller-bin", "text")],
        [caller_metadata(RowCaller(scopes=["generate"]))],
        [caller_metadata(RowCaller(tenant="acme"))],
    ],
    ids=["none", "two", "broken", "text", "no tenant", "no scope"],
)
def test_a_call_without_one_such_caller_is_refused(metadata: list[tuple[str, Any]]) -> None:
    with pytest.raises(PermissionDenied):
        admit(*metadata)


@pytest.mark.parametrize("access", [None, Access(scope="admin:*")])
def test_a_method_that_the_caller_may_not_call_is_refused(access: Access | None) -> None:
    with pytest.raises(PermissionDenied):
        admit(caller_metadata(ANN), access=access)


def test_what_was_taken_away_is_refused_and_what_is_unknown_comes_later() -> None:
    with pytest.raises(PermissionDenied, match="tenant acme may not use the mesh"):
        admit(caller_metadata(ANN), requires_keys=True)
    with pytest.raises(ControlUnavailable, match="tables are read"):
        admit(caller_metadata(ANN), tables=_Tables("tables are read"), requires_keys=True)

"""Pages of several leaders become pages of the mesh, without gap or repeat."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidRequest
from headrace.internal.v1.operations_pb2 import ListLiveRequestsResponse, LiveRequestRow
from headrace.internal.v1.reports_pb2 import LocateResponse
from headrace_control.operations.live_requests import (
    after_of,
    listed,
    located,
    merged,
    page_limit,
)


def portion(sequences: Sequence[int], after: int, rows: int) -> ListLiveRequestsResponse:
    """What a leader that has these lists."""
    left = [sequence for sequence in sorted(sequences) if sequence > after]
    listed = [LiveRequestRow(request_id=str(each), sequence=each) for each in left[:rows]]
    return ListLiveRequestsResponse(rows=listed, has_more=len(left) > rows)


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.integers(1, 9),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_pages_have_every_request_once_in_order(
    owners: list[int], limit: int, rows: int, drawn: random.Random
) -> None:
    """Whatever the leaders have, and however early each cuts its answer."""
    leaders = [[n + 1 for n, owner in enumerate(owners) if owner == each] for each in range(4)]
    seen: list[int] = []
    token, is_first = "", True
    while token or is_first:
        is_first = False
        after = after_of(token)
        cut = [min(limit, drawn.randint(1, rows)) for _ in leaders]
        portions = [portion(each, after, n) for each, n in zip(leaders, cut, strict=True)]
        page, token = merged(portions, limit)
        assert len(page) <= limit
        assert page or not token
        seen += [row.sequence for row in page]
    assert seen == list(range(1, len(owners) + 1))


def test_pages_are_bounded() -> None:
    assert [page_limit(size) for size in (0, 1, 500, 501, 9999)] == [100, 1, 500, 500, 500]
    with pytest.raises(InvalidRequest, match="page_size is -1"):
        page_limit(-1)


@pytest.mark.parametrize("token", ["x", "9", "WyJ0ZW5hbnRzIiwgMV0", "é"])
def test_a_token_of_no_page_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        after_of(token)


@pytest.mark.parametrize(
    ("running", "waits_for_quota", "state"),
    [(True, False, "running"), (False, False, "waiting"), (False, True, "paused")],
)
def test_a_request_has_one_state(running: bool, waits_for_quota: bool, state: str) -> None:
    row = LiveRequestRow(request_id="a", running=running, waits_for_quota=waits_for_quota)
    assert listed(row).state == state
    found = LocateResponse(running=running, waits_for_quota=waits_for_quota)
    found.record.request_id = "a"
    assert located(found).state == state

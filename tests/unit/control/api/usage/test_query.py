"""What OpenAI's usage API is asked for: buckets, filters, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidRequest
from headrace_control.api.usage.query import COSTS, DAY_S, USAGE, UsageQuery, read_query

NOON_S = 1_793_534_400  # 2026-11-01 12:00 UTC
MIDNIGHT_S = NOON_S - DAY_S // 2


def query(**parameters: object) -> UsageQuery:
    given_ = {name: [str(value)] for name, value in parameters.items()}
    return read_query(USAGE, given_, now_s=NOON_S)


def test_the_first_bucket_begins_at_the_start_and_the_last_ends_at_the_end() -> None:
    found = query(start_time=NOON_S, end_time=NOON_S + 2 * DAY_S)
    assert found.buckets == (
        (NOON_S, MIDNIGHT_S + DAY_S),
        (MIDNIGHT_S + DAY_S, MIDNIGHT_S + 2 * DAY_S),
        (MIDNIGHT_S + 2 * DAY_S, NOON_S + 2 * DAY_S),
    )
    assert found.next_page == ""


def test_without_an_end_the_last_bucket_is_the_one_that_goes_on() -> None:
    assert query(start_time=MIDNIGHT_S).buckets == ((MIDNIGHT_S, MIDNIGHT_S + DAY_S),)


@given(
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    st.sampled_from(["1m", "1h", "1d"]),
    st.integers(1, 31),
)
def test_pages_cover_the_time_without_gap_or_overlap(
    start: int, seconds: int, width: str, limit: int
) -> None:
    end, page, at, pages = start + seconds, "", start, 0
    options = {"start_time": start, "end_time": end, "bucket_width": width, "limit": limit}
    while pages < 40:
        found = query(**options, **({"page": page} if page else {}))
        assert 1 <= len(found.buckets) <= limit
        for begin, until in found.buckets:
            assert begin == at < until <= end
            at = until
        if not (page := found.next_page):
            assert at == end
            return
        pages += 1


def test_lists_may_have_brackets() -> None:
    given_ = {"start_time": ["0"], "models[]": ["a", "b"], "group_by": ["model"]}
    found = read_query(USAGE, given_, now_s=NOON_S)
    assert found.lists == {"models": ("a", "b"), "group_by": ("model",)}
    assert query(start_time=0, batch="true").batch is True
    assert query(start_time=0).batch is None


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "start_time"),
        ({"start_time": "soon"}, "start_time"),
        ({"start_time": "-1"}, "start_time"),
        ({"start_time": 5, "end_time": 5}, "end_time"),
        ({"start_time": 5, "bucket_width": "1w"}, "bucket_width"),
        ({"start_time": 5, "limit": 32}, "limit"),
        ({"start_time": 5, "page": "page_4"}, "page"),
        ({"start_time": 5, "page": "x"}, "page"),
        ({"start_time": 5, "batch": "perhaps"}, "batch"),
        ({"start_time": 5, "group_by": "service_tier"}, "group_by"),
        ({"start_time": 5, "project_id": "acme"}, "project_id"),
        ({"start_time": 5, "limit[]": 3}, "limit[]"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_by_name(
    parameters: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        query(**parameters)
    assert refused.value.field == field


def test_costs_have_days_alone() -> None:
    with pytest.raises(InvalidRequest, match="must be one of 1d"):
        read_query(COSTS, {"start_time": ["0"], "bucket_width": ["1h"]}, now_s=NOON_S)

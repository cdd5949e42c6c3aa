"""Live requests are listed in the order of the stream, a bounded page at a time."""

from __future__ import annotations

import random

from headrace.internal.v1.operations_pb2 import ListLiveRequestsRequest, ListLiveRequestsResponse
from headrace_scheduler.request.live_list import MAX_BYTES, MAX_ROWS, first_of, page
from headrace_scheduler.state.events import CancelRequested
from helpers.scheduler_events import MODEL, Bench


def bench(*ids: str, **fields: object) -> Bench:
    made = Bench()
    made.submit(*ids, **fields)
    return made


def listed(bench: Bench, query: ListLiveRequestsRequest) -> ListLiveRequestsResponse:
    requests = bench.machine.requests()
    random.shuffle(requests)
    return page(first_of(requests, query), query, bench.machine.worker_name)


def ids(response: ListLiveRequestsResponse) -> list[str]:
    return [row.request_id for row in response.rows]


def test_pages_follow_one_another_without_gap_or_repeat() -> None:
    names = [f"r{number}" for number in range(7)]
    queue = bench(*names)
    found: list[str] = []
    after, has_more = 0, True
    while has_more:
        query = ListLiveRequestsRequest(limit=3, after_sequence=after)
        response = listed(queue, query)
        assert len(response.rows) <= 3
        found += ids(response)
        after, has_more = response.rows[-1].sequence, response.has_more
    assert found == names


def test_a_row_says_how_the_request_stands() -> None:
    queue = bench("a")
    queue.worker()
    queue.accept()
    (row,) = listed(queue, ListLiveRequestsRequest()).rows
    assert (row.request_id, row.model, row.running, row.worker_name) == (
        "a",
        MODEL,
        True,
        "name of w",
    )
    assert row.prompt_tokens == 3
    assert row.attempt > 0


def test_one_tenant_and_probes_are_chosen() -> None:
    queue = bench("a", tenant="team-a")
    queue.submit("b", tenant="team-b")
    queue.submit("canary", tenant="team-a", probe=True)
    assert ids(listed(queue, ListLiveRequestsRequest())) == ["a", "b"]
    assert ids(listed(queue, ListLiveRequestsRequest(tenant="team-a"))) == ["a"]
    both = ListLiveRequestsRequest(tenant="team-a", probes=True)
    assert ids(listed(queue, both)) == ["a", "canary"]


def test_an_ended_request_that_only_its_gateway_has_not_settled_is_left_out() -> None:
    queue = bench("a", "b")
    queue.apply(CancelRequested("a"))
    assert ids(listed(queue, ListLiveRequestsRequest())) == ["b"]


def test_an_answer_is_bounded_in_rows_and_in_bytes() -> None:
    many = bench(*map(str, range(MAX_ROWS + 20))).machine.requests()
    for limit in (0, MAX_ROWS + 10):
        query = ListLiveRequestsRequest(limit=limit)
        response = page(first_of(many, query), query, lambda _: "")
        assert len(response.rows) == MAX_ROWS
        assert response.has_more
    query = ListLiveRequestsRequest()
    response = page(first_of(many, query), query, lambda _: 20_000 * "w")
    assert 0 < len(response.rows) < MAX_ROWS
    assert response.ByteSize() <= MAX_BYTES + 8 * MAX_ROWS
    assert response.has_more


def test_a_row_above_the_bound_is_sent_alone() -> None:
    both = bench("a", "b").machine.requests()
    query = ListLiveRequestsRequest()
    response = page(first_of(both, query), query, lambda _: MAX_BYTES * "w")
    assert len(response.rows) == 1

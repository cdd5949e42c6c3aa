"""Pure: the live requests as operators list them, a page at a time.

Pages follow the order of the stream of requests. It is one for all models, so the pages of several
leaders are merged by it, and a page begins after the last sequence of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nsmallest

from headrace.internal.v1.operations_pb2 import (
    ListLiveRequestsRequest,
    ListLiveRequestsResponse,
    LiveRequestRow,
)
from headrace_scheduler.request.live_request import Ending, Request

MAX_ROWS = 500
MAX_BYTES = 512 * 1024
"""Of the rows of one answer. The broker's own bound for a message is 1 MiB."""


def row_limit(query: ListLiveRequestsRequest) -> int:
    return min(query.limit or MAX_ROWS, MAX_ROWS)


def first_of(requests: Iterable[Request], query: ListLiveRequestsRequest) -> list[Request]:
    """Return the first of those that are queried, in order; one more than the answer has rows.

    Ending requests are left out: their end is only to be relayed to their clients.
    """
    tenant, after, probes = query.tenant, query.after_sequence, query.probes
    found = (
        request
        for request in requests
        if request.sequence > after
        and (probes or not request.is_probe)
        and (not tenant or request.tenant == tenant)
        and not isinstance(request.state, Ending)
    )
    return nsmallest(row_limit(query) + 1, found, key=_sequence)


def page(
    found: list[Request], query: ListLiveRequestsRequest, worker_name: Callable[[Request], str]
) -> ListLiveRequestsResponse:
    """Return the rows of these requests, up to the bounds of an answer."""
    response, size = ListLiveRequestsResponse(), 0
    for request in found[: row_limit(query)]:
        row = _row(request, worker_name(request))
        size += row.ByteSize()
        if size > MAX_BYTES and response.rows:
            break
        response.rows.append(row)
    response.has_more = len(response.rows) < len(found)
    return response


def _sequence(request: Request) -> int:
    return request.sequence


def _row(request: Request, worker_name: str) -> LiveRequestRow:
    record = request.record
    return LiveRequestRow(
        request_id=record.request_id,
        sequence=request.sequence,
        model=record.model,
        priority=record.priority,
        running=request.is_running,
        worker_name=worker_name,
        arrival=record.arrival,
        attempt=record.attempt,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        detached=record.detached,
        waits_for_quota=request.waits_for_quota,
    )

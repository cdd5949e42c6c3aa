"""Pure: pages of live requests, merged from the pages of several leaders.

Leaders list in the order of the stream of requests, which is one for all models. So a page of the
mesh is the first rows of all, and the next one begins after its last sequence:

    leader of delta    rows 3 7 9, and there are more
    leader of valley   rows 4 12 30
    page of 500        3 4 7 9; delta may have a 10, so the next page begins after 9
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge

from headrace.admin.v1.operations_pb2 import LiveRequest
from headrace.internal.v1.operations_pb2 import ListLiveRequestsResponse, LiveRequestRow
from headrace.internal.v1.reports_pb2 import LocateResponse, ResultRecord
from headrace_control.base.page_tokens import page_size, page_token, start_after
from headrace_control.operations.names import request_name

MAX_PAGE = 500
_LIST = "requests"
WAITING, RUNNING, PAUSED, ENDED = "waiting", "running", "paused", "ended"


def page_limit(size: int) -> int:
    """Return how many rows a page has: at most 500, as leaders list; 0 is 100.

    Raises:
        InvalidRequest: the size is negative.
    """
    return min(page_size(size), MAX_PAGE)


def after_of(token: str) -> int:
    """Return the sequence after which a page begins.

    Raises:
        InvalidRequest: no page has returned this token.
    """
    after = start_after(token, _LIST, [int])
    return 0 if after is None else max(0, int(after[0]))


def merged(
    portions: Iterable[ListLiveRequestsResponse], limit: int
) -> tuple[list[LiveRequestRow], str]:
    """Return a page, and the token of the next one; an empty token if there is none."""
    known = list(portions)
    # Beyond the last row of a leader that has more, its next ones may come first.
    ends = [portion.rows[-1].sequence for portion in known if portion.has_more and portion.rows]
    end = min(ends, default=None)
    rows: list[LiveRequestRow] = []
    for row in merge(*(portion.rows for portion in known), key=lambda row: row.sequence):
        if len(rows) == limit or (end is not None and row.sequence > end):
            return rows, page_token(_LIST, [rows[-1].sequence])
        rows.append(row)
    return rows, "" if end is None else page_token(_LIST, [rows[-1].sequence])


def _state(found: LiveRequestRow | LocateResponse) -> str:
    if found.waits_for_quota:
        return PAUSED
    return RUNNING if found.running else WAITING


def listed(row: LiveRequestRow) -> LiveRequest:
    return LiveRequest(
        name=request_name(row.request_id),
        model=row.model,
        priority=row.priority,
        state=_state(row),
        worker=row.worker_name,
        create_time=row.arrival,
        attempt=row.attempt,
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        background=row.detached,
    )


def located(found: LocateResponse) -> LiveRequest:
    """Return a request as its leader knew it when it was cancelled."""
    record = found.record
    return LiveRequest(
        name=request_name(record.request_id),
        model=record.model,
        priority=record.priority,
        state=_state(found),
        worker=found.worker_name,
        create_time=record.arrival,
        attempt=record.attempt,
        prompt_tokens=record.prompt_tokens,
        background=record.detached,
    )


def ended(result: ResultRecord) -> LiveRequest:
    """Return a request that has ended before, by its result."""
    return LiveRequest(
        name=request_name(result.request_id),
        model=result.model,
        priority=result.priority,
        state=ENDED,
        create_time=result.arrival,
        attempt=result.attempt,
        prompt_tokens=result.outcome.usage.prompt_tokens,
        output_tokens=result.outcome.usage.output_tokens,
        background=result.request.detached,
    )

"""Stores an error as the result of a request that no gateway could end."""

from __future__ import annotations

from headrace.bus import Results
from headrace.errors import HeadraceError
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace_scheduler.request.live_request import without_prompt


async def stored_outcome(results: Results, record: RequestRecord) -> RequestOutcome | None:
    """Return the outcome that a gateway has stored; None if there is none.

    Raises:
        BusUnavailable: the broker is away.
    """
    stored = await results.get_result(record.request_id)
    if stored is None:
        return None
    result = ResultRecord.FromString(stored)
    # Why arrivals: the id may have been another request's before.
    return result.outcome if result.request.arrival == record.arrival else None


async def store_error(
    results: Results, record: RequestRecord, error: HeadraceError
) -> RequestOutcome:
    """Store the error, unless its gateway has stored a result; return what is stored.

    Raises:
        BusUnavailable: it is not known to be stored; call again.
    """
    if (stored := await stored_outcome(results, record)) is not None:
        return stored
    usage = Usage(
        prompt_tokens=record.prompt_tokens,
        output_tokens=sum(len(each.output_ids) for each in record.progress),
    )
    request = without_prompt(record)
    request.ClearField("progress")
    result = ResultRecord(
        request_id=record.request_id,
        model=record.model,
        priority=record.priority,
        arrival=record.arrival,
        attempt=record.attempt,
        outcome=RequestOutcome(usage=usage, error=to_status(error)),
        request=request,
    )
    result.end_time.GetCurrentTime()
    ttl_s = record.result_ttl.ToNanoseconds() / 1e9
    await results.put_result(record.request_id, result.SerializeToString(), kept_s=ttl_s)
    return result.outcome

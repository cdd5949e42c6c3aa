"""What a request has used, as its leader publishes it. Pure.

The leader's own part, `source` and `end_ms`, is added where it is published.
"""

from __future__ import annotations

from headrace.internal.v1.reports_pb2 import Settlement
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.internal.v1.usage_pb2 import UsageKind, UsageRecord
from headrace.request_keys import public_id
from headrace.v1.common_pb2 import RequestOutcome
from headrace_scheduler.request.live_request import Request


def usage_record(request: Request, settlement: Settlement) -> UsageRecord:
    """Return the record of a request that has ended with these figures."""
    record = request.record
    return UsageRecord(
        sequence=request.sequence,
        request_id=public_id(request.request_id),
        reservation_id=record.reservation_id,
        tenant=request.tenant,
        key_id=record.key_id,
        person=record.person,
        model=record.listed_model or _listed_model(record),
        version="+".join(filter(None, (request.weights_digest, request.adapter_digest))),
        priority=record.priority,
        kind=_kind(record),
        code=settlement.code,
        input_tokens=settlement.prompt_tokens,
        cached_input_tokens=settlement.cached_prompt_tokens,
        output_tokens=settlement.output_tokens,
        reasoning_tokens=settlement.reasoning_tokens,
        arrival_ms=record.arrival.ToMilliseconds(),
        queue_ms=_milliseconds(request.first_dispatched_s - request.arrival_s),
        first_token_ms=settlement.first_token_ms,
        attempts=request.dispatches,
        batch_id=record.batch_id,
        batch_line=record.batch_line,
        detached=record.detached,
        engine=request.engine,
        n=request.choices,
    )


def known_settlement(request: Request, code: int) -> Settlement:
    """Return what is known here of a request that no gateway settles."""
    record = request.record
    return Settlement(
        request_id=request.request_id,
        code=code,
        prompt_tokens=record.prompt_tokens or request.prompt_tokens,
        output_tokens=request.output_tokens,
        cached_prompt_tokens=max((p.cached_prompt_tokens for p in record.progress), default=0),
    )


def use_outcome(usage: UsageRecord, outcome: RequestOutcome) -> None:
    """Replace the figures of a record by those of the outcome that is stored as its result."""
    usage.code = outcome.error.code
    usage.input_tokens = outcome.usage.prompt_tokens
    usage.cached_input_tokens = outcome.usage.cached_prompt_tokens
    usage.output_tokens = outcome.usage.output_tokens
    usage.reasoning_tokens = outcome.usage.reasoning_tokens


def _kind(record: RequestRecord) -> UsageKind.ValueType:
    if not record.inputs:
        return UsageKind.USAGE_KIND_COMPLETIONS
    is_pair = any(each.second_begins for each in record.inputs)
    return UsageKind.USAGE_KIND_RERANK if is_pair else UsageKind.USAGE_KIND_EMBEDDINGS


def _listed_model(record: RequestRecord) -> str:
    """Of a record that an earlier version has published."""
    return ":".join(filter(None, (record.model, record.adapter)))


def _milliseconds(seconds: float) -> int:
    return max(0, round(1000 * seconds)) if seconds > float("-inf") else 0

"""Pure: a checked request as the record that workers get of it."""

from __future__ import annotations

from headrace.internal.v1.request_pb2 import Input, RequestRecord
from headrace_gateway.request.generation import ValidRequest


def request_record(request: ValidRequest, arrival_s: float) -> RequestRecord:
    """Return all of a request that does not depend on the gateway that submits it.

    Args:
        arrival_s: in Unix time.
    """
    record = RequestRecord(
        request_id=request.key,
        tenant=request.tenant,
        model=request.card.model,
        weights_digest=request.card.weights_digest,
        adapter=request.adapter,
        adapter_digest=request.adapter_digest,
        priority=request.priority,
        prompt_ids=request.prompt_ids,
        sampling=request.sampling,
        seed=request.seed,
        n=request.n,
        trace_context=request.trace_context,
        inputs=(
            Input(token_ids=each.token_ids, second_begins=each.second_begins)
            for each in request.inputs
        ),
        prompt_tokens=request.prompt_tokens,
        attachable=request.resumable or request.background,
        once=request.once,
        detached=request.background,
        cache_salt=request.cache_salt,
        key_id=request.key_id,
        person=request.person,
        listed_model=request.model,
        stored_response=request.stored_response,
    )
    record.arrival.FromNanoseconds(int(arrival_s * 1e9))
    if not request.inputs:
        record.rendering.CopyFrom(request.rendering)
    return record

"""What a gateway keeps of a request's record while it is open, and with its result."""

from __future__ import annotations

from hashlib import blake2b

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.stream.open_request import AdmittedRequest
from headrace_gateway.stream.output_log import LogprobsRequest

_DIGEST_BYTES = 16


def admitted_as(
    record: RequestRecord, *, deadline_s: float, is_canary: bool = False
) -> AdmittedRequest:
    """`deadline_s`: on the monotonic clock."""
    return AdmittedRequest(
        request_id=record.request_id,
        model=record.model,
        priority=record.priority,
        arrival_s=record.arrival.ToNanoseconds() / 1e9,
        deadline_s=deadline_s,
        prompt_tokens=record.prompt_tokens,
        choices=max(1, record.n),
        max_tokens=record.sampling.max_tokens,
        record=without_prompt(record),
        logprobs_request=_logprobs_request(record),
        is_canary=is_canary,
    )


def without_prompt(record: RequestRecord) -> RequestRecord:
    """What an answer is rebuilt by. Prompt and output are stored elsewhere, or nowhere."""
    kept = RequestRecord()
    kept.CopyFrom(record)
    for field in ("prompt_ids", "inputs", "progress", "trace_context"):
        kept.ClearField(field)
    return kept


def _logprobs_request(record: RequestRecord) -> LogprobsRequest:
    sampling = record.sampling
    prompt_logprobs = record.prompt_tokens - 1 if sampling.HasField("prompt_logprobs") else None
    return LogprobsRequest(logprobs=sampling.HasField("logprobs"), prompt_logprobs=prompt_logprobs)


def digest_of(request: ValidRequest) -> bytes:
    """Of all that decides the answer but its seed and the model's weights."""
    asked = RequestRecord(
        model=request.card.model,
        adapter=request.adapter,
        prompt_ids=request.prompt_ids,
        sampling=request.sampling,
        n=request.n,
        rendering=request.rendering,
    )
    octets = asked.SerializeToString(deterministic=True)
    return blake2b(octets, digest_size=_DIGEST_BYTES).digest()

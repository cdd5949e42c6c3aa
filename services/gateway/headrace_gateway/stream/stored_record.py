"""What a gateway keeps of a request's record while it is open, and with its result."""

from __future__ import annotations

from hashlib import blake2b

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_gateway.request.generation import ValidRequest

_DIGEST_BYTES = 16


def without_prompt(record: RequestRecord) -> RequestRecord:
    """Return what an answer is rebuilt from. Prompt and output are stored elsewhere, or nowhere."""
    kept = RequestRecord()
    kept.CopyFrom(record)
    for field in ("prompt_ids", "inputs", "progress", "trace_context"):
        kept.ClearField(field)
    return kept


def wants_logprobs(record: RequestRecord) -> bool:
    return record.sampling.HasField("logprobs") or record.sampling.HasField("prompt_logprobs")


def digest_of(request: ValidRequest) -> bytes:
    """Return the digest of all that decides the answer, except its seed and the model's weights."""
    decisive = RequestRecord(
        model=request.card.model,
        adapter=request.adapter,
        prompt_ids=request.prompt_ids,
        sampling=request.sampling,
        n=request.n,
        rendering=request.rendering,
    )
    octets = decisive.SerializeToString(deterministic=True)
    return blake2b(octets, digest_size=_DIGEST_BYTES).digest()

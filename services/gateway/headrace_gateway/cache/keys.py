"""Which requests have equal answers. Pure.

An answer is made again, token for token, by the same weights from the same prompt and parameters
if nothing is drawn (temperature 0) or the caller has fixed the seed. The key of a request is an
HMAC of all that decides its answer, so whoever reads the cache learns nothing of prompts.
"""

from __future__ import annotations

import hmac
from hashlib import blake2b

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_gateway.request.generation import Input, ValidRequest


def is_reproducible(request: ValidRequest, *, seeded: bool) -> bool:
    """Return whether the same request has the same answer again.

    Args:
        seeded: its caller has named the seed.
    """
    # Engines that cannot resume an answer run elsewhere, and may change without notice.
    return request.card.capabilities.resume and (seeded or not request.sampling.temperature)


def key_of(request: ValidRequest, secret: bytes) -> str:
    """Return the key of a reproducible request, in hexadecimal; that of each tenant is another."""
    decisive = RequestRecord(
        tenant=request.tenant,
        model=request.card.model,
        weights_digest=request.card.weights_digest,
        adapter=request.adapter,
        adapter_digest=request.adapter_digest,
        prompt_ids=request.prompt_ids,
        sampling=request.sampling,
        seed=request.seed if request.sampling.temperature else 0,
        n=request.n,
        cache_salt=request.cache_salt,
        rendering=request.rendering,
    )
    return hmac.digest(secret, decisive.SerializeToString(deterministic=True), "sha256").hex()


def vector_key(request: ValidRequest, each: Input) -> bytes:
    """Return the key of the vector of one input."""
    decisive = RequestRecord(
        tenant=request.tenant,
        model=request.card.model,
        weights_digest=request.card.weights_digest,
        prompt_ids=each.token_ids,
        n=each.second_begins,
    )
    return blake2b(decisive.SerializeToString(deterministic=True), digest_size=24).digest()

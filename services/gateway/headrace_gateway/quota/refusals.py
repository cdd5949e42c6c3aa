"""A refusal of the quota keeper, as its caller reads it. Pure.

a minute's window     RateLimitExceeded: retry in 12 s
requests under way    RateLimitExceeded: retry when one of them has ended, in about 1 s
a day, a budget       InsufficientQuota: it resets at 2026-12-01T00:00:00Z, in 8h36m12s
the request alone     InsufficientQuota: no time helps
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from headrace.billing.money import amount_text
from headrace.errors import HeadraceError, InsufficientQuota, QuotaViolation, RateLimitExceeded
from headrace.internal.v1.quota_pb2 import LimitKind, LimitScope, QuotaRefusal, QuotaReply
from headrace_gateway.quota.headers import duration_text
from headrace_gateway.request.payer import Payer

CONCURRENT = LimitKind.LIMIT_KIND_CONCURRENT_REQUESTS
BUDGET = LimitKind.LIMIT_KIND_BUDGET_PER_MONTH
OF_MINUTES = (
    LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE,
    LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE,
    CONCURRENT,
)
OF_REQUESTS = (
    LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE,
    LimitKind.LIMIT_KIND_REQUESTS_PER_DAY,
    CONCURRENT,
)
_OF_KEYS = (LimitScope.LIMIT_SCOPE_KEY, LimitScope.LIMIT_SCOPE_KEY_MODEL)
_LEAST_WAIT_S = 0.001
_ADVICE = {
    LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE: " or request fewer with max_tokens",
    LimitKind.LIMIT_KIND_TOKENS_PER_DAY: " Fewer max_tokens may still fit.",
    LimitKind.LIMIT_KIND_BATCH_TOKENS_PER_DAY: " Fewer max_tokens may still fit.",
    BUDGET: " Fewer max_tokens may still fit.",
}


def refusal_error(
    refusal: QuotaRefusal, payer: Payer, now_ms: int, *, currency: str = "USD"
) -> HeadraceError:
    """Return the error of a request that the keeper has refused.

    Args:
        currency: of the tenant, in which budgets are.
    """
    violation = QuotaViolation(
        limit=limit_name(refusal.kind),
        scope=scope_name(refusal.scope),
        subject=_subject(refusal, payer),
        model=refusal.model,
        value=refusal.limit,
        used=refusal.used,
        requested=refusal.requested,
    )
    wait_s = max(_LEAST_WAIT_S, (refusal.retry_after_ms - now_ms) / 1000)
    error: HeadraceError
    if refusal.never:
        error = InsufficientQuota(_never(refusal, violation, currency))
    elif refusal.kind in OF_MINUTES:
        error = RateLimitExceeded(_for_now(refusal, violation, wait_s), retry_after_s=wait_s)
    else:
        text = _until(refusal, violation, currency, now_ms)
        error = InsufficientQuota(text, retry_after_s=wait_s)
    error.violation = violation
    return error


def until_all_fit(reply: QuotaReply) -> QuotaReply:
    """Return the refusal of one of several requests of a call, to last until all of them fit.

    Why: the keeper says when that one fits beside those before it, and not the others after it. All
    fit when a whole limit of a minute is there again: for more the call would never be admitted.
    """
    resets = [state.reset_ms for state in reply.limits if state.kind in OF_MINUTES]
    found = QuotaReply()
    found.CopyFrom(reply)
    if reply.refusal.kind in OF_MINUTES:
        found.refusal.retry_after_ms = max([reply.refusal.retry_after_ms, *resets])
    return found


def limit_name(kind: LimitKind.ValueType) -> str:
    """Return the name of a limit: `tokens_per_minute`."""
    return LimitKind.Name(kind).removeprefix("LIMIT_KIND_").lower()


def scope_name(scope: LimitScope.ValueType) -> str:
    return LimitScope.Name(scope).removeprefix("LIMIT_SCOPE_").lower()


def is_of_key(scope: LimitScope.ValueType) -> bool:
    """Return whether it is a limit of a key, not of its tenant."""
    return scope in _OF_KEYS


def _subject(refusal: QuotaRefusal, payer: Payer) -> str:
    tenant = f"tenants/{payer.tenant}"
    return f"{tenant}/keys/{payer.key_id}" if is_of_key(refusal.scope) else tenant


def _whose(refusal: QuotaRefusal, violation: QuotaViolation) -> str:
    *_, kind, name = violation.subject.split("/")
    model = f" for model {refusal.model}" if refusal.model else ""
    return f"{kind.removesuffix('s')} {name}{model}"


def _state(refusal: QuotaRefusal, violation: QuotaViolation, currency: str) -> str:
    used, requested, limit = (
        _amount(refusal.kind, number, currency)
        for number in (refusal.used, refusal.requested, refusal.limit)
    )
    whose = _whose(refusal, violation)
    return f"{violation.limit} of {whose}: limit {limit}, used {used}, requested {requested}."


def _for_now(refusal: QuotaRefusal, violation: QuotaViolation, wait_s: float) -> str:
    fact = f"Rate limit reached, {_state(refusal, violation, '')}"
    wait = f"{math.ceil(wait_s)} s"
    if refusal.kind == CONCURRENT:
        return f"{fact} Retry when one of the requests under way has ended, in about {wait}."
    return f"{fact} Retry in {wait}{_ADVICE.get(refusal.kind, '')}."


def _until(refusal: QuotaRefusal, violation: QuotaViolation, currency: str, now_ms: int) -> str:
    # Why not up: the keeper's midnight is some milliseconds later by the clock here.
    at = datetime.fromtimestamp(round(refusal.retry_after_ms / 1000), UTC)
    return (
        f"Quota exceeded, {_state(refusal, violation, currency)} It resets at"
        f" {at:%Y-%m-%dT%H:%M:%SZ}, in {duration_text(refusal.retry_after_ms - now_ms)}."
        f"{_ADVICE.get(refusal.kind, '')} An administrator of the mesh can raise the limit."
    )


def _never(refusal: QuotaRefusal, violation: QuotaViolation, currency: str) -> str:
    return (
        f"The request alone exceeds {_state(refusal, violation, currency)} Send a shorter prompt,"
        " request fewer max_tokens or choices, or have the limit raised."
    )


def _amount(kind: LimitKind.ValueType, number: int, currency: str) -> str:
    if kind != BUDGET:
        return str(number)
    return f"{amount_text(number)} {currency}"

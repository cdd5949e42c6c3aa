"""What the quota keeper has refused lately, so that the same is refused here at once. Pure.

The keeper refuses a key a request of 900 tokens: of its limit of a minute 500 are left, and in 12 s
there are 900. For the next second:

    600 to 1000 tokens    not known: the keeper is asked
    900 tokens            refused; in 12 s there are enough
    1000 tokens or more   refused for sure, but in 12 s there may not be enough: the keeper is asked

A limit of requests refuses requests of any size; of those that other limits may refuse for longer,
the keeper is asked. Why for a second only: what ends meanwhile returns what it has not used.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.internal.v1.quota_pb2 import LimitState, QuotaReply
from headrace_gateway.quota.refusals import BUDGET, CONCURRENT, OF_REQUESTS
from headrace_gateway.request.payer import Payer, TokenRange

MAX_REFUSALS = 10_000
"""Beyond, all are forgotten."""


@dataclass(frozen=True, slots=True)
class _Refused:
    reply: QuotaReply
    tokens: int
    """Of the request that was refused."""
    until_ms: int
    """It is forgotten then."""


class RefusalMemory:
    """The newest refusal of each tenant, key and model, for `kept_ms`."""

    def __init__(self, *, kept_ms: int) -> None:
        self._kept_ms = kept_ms
        self._refused: dict[Payer, _Refused] = {}

    def __len__(self) -> int:
        return len(self._refused)

    def add(self, payer: Payer, tokens: int, reply: QuotaReply, now_ms: int) -> None:
        """Remember a refusal of a request with so many tokens."""
        refusal = reply.refusal
        # Why not: another of them may end at any moment.
        if refusal.kind == CONCURRENT and not refusal.never:
            return
        until_ms = now_ms + self._kept_ms
        if not refusal.never:
            until_ms = min(until_ms, refusal.retry_after_ms)
        if len(self._refused) >= MAX_REFUSALS:
            self._refused.clear()
        self._refused[payer] = _Refused(reply, tokens, until_ms)

    def find(self, payer: Payer, tokens: TokenRange, now_ms: int) -> QuotaReply | None:
        """Return the refusal of a request that is refused for sure, until the time that the refusal
        has; None if there is none."""
        if (found := self._refused.get(payer)) is None:
            return None
        if found.until_ms <= now_ms:
            del self._refused[payer]
            return None
        return found.reply if _applies(found, tokens) else None


def _applies(found: _Refused, tokens: TokenRange) -> bool:
    refusal = found.reply.refusal
    if refusal.kind not in OF_REQUESTS and tokens.fewest < found.tokens:
        return False
    if refusal.never or tokens.most <= found.tokens:
        return True
    return refusal.kind in OF_REQUESTS and all(
        state.reset_ms <= refusal.retry_after_ms or _leaves_room(state, tokens)
        for state in found.reply.limits
        if state.kind not in OF_REQUESTS
    )


def _leaves_room(state: LimitState, tokens: TokenRange) -> bool:
    # A budget is in money, and tokens have the price of their model.
    return state.kind != BUDGET and tokens.most <= state.remaining

"""What was refused a moment ago is refused again without asking, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.internal.v1.quota_pb2 import LimitKind, LimitState, QuotaRefusal, QuotaReply
from headrace_gateway.quota.memory import MAX_REFUSALS, RefusalMemory
from headrace_gateway.request.payer import Payer, TokenRange

NOW_MS = 1_800_000_000_000
PAYER = Payer("acme", "k1", "valley")
TOKENS, REQUESTS = LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE, LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE
ANY_SIZE = TokenRange(1, 4096)


def reply(
    kind: LimitKind.ValueType,
    *,
    wait_ms: int = 12_000,
    never: bool = False,
    limits: Iterable[LimitState] = (),
) -> QuotaReply:
    refusal = QuotaRefusal(kind=kind, retry_after_ms=NOW_MS + wait_ms, never=never)
    return QuotaReply(refusal=refusal, limits=limits)


def memory(refused: QuotaReply, *, tokens: int = 900) -> RefusalMemory:
    made = RefusalMemory(kept_ms=1000)
    made.add(PAYER, tokens, refused, NOW_MS)
    return made


def exactly(tokens: int) -> TokenRange:
    return TokenRange(tokens, tokens)


def test_the_same_number_of_tokens_is_refused_and_others_may_not_be() -> None:
    known = memory(reply(TOKENS))
    assert known.find(PAYER, exactly(900), NOW_MS) is not None
    assert known.find(PAYER, exactly(899), NOW_MS) is None
    # It is refused for sure, but not only until then.
    assert known.find(PAYER, exactly(901), NOW_MS) is None


def test_what_alone_exceeds_a_limit_is_refused_at_every_size_above() -> None:
    known = memory(reply(TOKENS, never=True))
    assert known.find(PAYER, exactly(5000), NOW_MS) is not None
    assert known.find(PAYER, exactly(899), NOW_MS) is None


def test_a_limit_of_requests_refuses_before_the_tokens_are_known() -> None:
    assert memory(reply(REQUESTS)).find(PAYER, ANY_SIZE, NOW_MS) is not None


def test_unless_a_limit_of_tokens_may_refuse_for_longer() -> None:
    left = LimitState(kind=TOKENS, remaining=2000, reset_ms=NOW_MS + 60_000)
    known = memory(reply(REQUESTS, limits=[left]))
    assert known.find(PAYER, ANY_SIZE, NOW_MS) is None
    assert known.find(PAYER, TokenRange(1, 2000), NOW_MS) is not None
    assert known.find(PAYER, exactly(900), NOW_MS) is not None


def test_a_budget_leaves_no_room_that_is_known_in_tokens() -> None:
    budget = LimitKind.LIMIT_KIND_BUDGET_PER_MONTH
    left = LimitState(kind=budget, remaining=10**12, reset_ms=NOW_MS + 10**9)
    assert memory(reply(REQUESTS, limits=[left])).find(PAYER, ANY_SIZE, NOW_MS) is None


def test_it_is_forgotten_soon_and_no_later_than_the_time_it_has() -> None:
    assert memory(reply(TOKENS)).find(PAYER, exactly(900), NOW_MS + 999) is not None
    assert memory(reply(TOKENS)).find(PAYER, exactly(900), NOW_MS + 1000) is None
    assert memory(reply(TOKENS, wait_ms=300)).find(PAYER, exactly(900), NOW_MS + 300) is None


def test_requests_under_way_may_end_at_any_moment_and_are_not_remembered() -> None:
    known = memory(reply(LimitKind.LIMIT_KIND_CONCURRENT_REQUESTS))
    assert known.find(PAYER, exactly(900), NOW_MS) is None


def test_another_key_model_or_batch_is_not_refused() -> None:
    known = memory(reply(REQUESTS))
    others = [
        Payer("acme", "k2", "valley"),
        Payer("acme", "k1", "hill"),
        Payer("beta", "k1", "valley"),
        Payer("acme", "k1", "valley", batch=True),
    ]
    assert [known.find(each, exactly(900), NOW_MS) for each in others] == [None] * 4


def test_it_holds_no_more_than_its_bound() -> None:
    known = RefusalMemory(kept_ms=1000)
    for number in range(MAX_REFUSALS + 1):
        known.add(Payer("acme", f"k{number}", "valley"), 1, reply(TOKENS), NOW_MS)
    assert 0 < len(known) <= MAX_REFUSALS

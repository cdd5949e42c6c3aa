"""Decides on a reservation: all limits at once, or nothing. Pure."""

from __future__ import annotations

from typing import cast

from headrace.internal.v1.quota_pb2 import (
    ChargeQuota,
    LimitKind,
    LimitScope,
    LimitState,
    QuotaChange,
    QuotaDate,
    QuotaRefusal,
    Reserve,
    SettleQuota,
)
from headrace.internal.v1.usage_pb2 import UsageRecord
from headrace_scheduler.quota.accounts import (
    BUDGET_PER_MONTH,
    CONCURRENT_REQUESTS,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_MINUTE,
    Account,
    Amounts,
    amounts,
    as_uint64,
)
from headrace_scheduler.quota.record import Accounts, QuotaRecord
from headrace_scheduler.quota.terms import TENANT, Limit, Terms

MAX_TOKENS = 2**40
"""Of each kind in one record: more are a mistake, and are not billed either."""
CONCURRENT_RETRY_MS = 1000
"""What a caller is given that has too many requests under way: when one ends is not known."""


def decide(
    record: QuotaRecord, reserve: Reserve, terms: Terms
) -> QuotaChange | QuotaRefusal | None:
    """Return the change that grants the reservation, or why it is refused.

    None grants what is granted already. Nothing is changed before the caller applies the change.
    """
    found = record.reservation(reserve.reservation_id)
    if found is None:
        if record.was_settled(reserve.reservation_id):
            return None
        input_tokens, output_tokens = reserve.input_tokens, reserve.output_tokens
        tokens, cost_before, batch = input_tokens + output_tokens, 0, reserve.batch
    else:
        input_tokens, output_tokens = found.raised(reserve)
        tokens, cost_before = input_tokens + output_tokens - found.tokens, found.cost
        batch = found.batch
        if tokens == 0:
            return None
    cost = terms.prices.at(record.time_ms).at_most(input_tokens, output_tokens)
    cost = max(cost, cost_before)
    asked = amounts(
        requests=int(found is None),
        tokens=tokens,
        cost=cost - cost_before,
        batch=batch,
        is_part=reserve.is_part,
    )
    date = terms.calendar.date(record.time_ms)
    owner = terms.owner(reserve.tenant) if found is None else found.owner
    accounts = record.accounts(owner, reserve.key_id, reserve.model, date)
    if (refusal := _refusal(record, terms, accounts, asked)) is not None:
        return refusal
    return QuotaChange(
        charge=ChargeQuota(
            reserve=reserve, cost_nanos=cost, date=_effective_date(accounts), owner=owner
        )
    )


def settlement(record: QuotaRecord, usage: UsageRecord, terms: Terms) -> QuotaChange | None:
    """Return the change that settles a request; None if it is settled already.

    What was never reserved is charged now: of callers without limits, which may be given some, of
    requests that were admitted without a keeper, or whose reservation has ended.
    """
    # Why the request, too: a broker that lost its power uses sequences again.
    reservation_id = usage.reservation_id or f"{usage.source}:{usage.sequence}:{usage.request_id}"
    found = record.reservation(reservation_id)
    if found is None and record.was_settled(reservation_id):
        return None
    price = terms.prices.at(usage.end_ms or record.time_ms)
    tokens = usage.input_tokens, usage.cached_input_tokens, usage.output_tokens
    used = tuple(min(each, MAX_TOKENS) for each in tokens)
    if usage.batch_id and usage.code:
        used = 0, 0, 0  # it is not billed
    date = terms.calendar.date(record.time_ms)
    owner = terms.owner(usage.tenant, usage.arrival_ms) if found is None else found.owner
    accounts = record.accounts(owner, usage.key_id, usage.model, date)
    return QuotaChange(
        settle=SettleQuota(
            reservation_id=reservation_id,
            tenant=usage.tenant,
            key_id=usage.key_id,
            model=usage.model,
            input_tokens=used[0],
            output_tokens=used[2],
            batch=bool(usage.batch_id),
            cost_nanos=price.of(*used),
            date=_effective_date(accounts),
            owner=owner,
        )
    )


def limit_states(
    record: QuotaRecord, caller: tuple[str, str, str], terms: Terms
) -> list[LimitState]:
    """Return the state of every limit that applies to a tenant, key and model."""
    tenant, key_id, model = caller
    date = terms.calendar.date(record.time_ms)
    accounts = record.accounts(terms.owner(tenant), key_id, model, date)
    return [_state(record, terms, limit, accounts.by_scope[limit.scope]) for limit in terms.limits]


def _effective_date(accounts: Accounts) -> QuotaDate:
    # Why not the calendar's: a time zone that was changed does not bring a day back.
    date = accounts.by_scope[TENANT].date
    return QuotaDate(day=date.day, month=date.month)


def _refusal(
    record: QuotaRecord, terms: Terms, accounts: Accounts, asked: Amounts
) -> QuotaRefusal | None:
    """Return the refusal of the limit that lasts longest; None if no limit is exceeded."""
    worst: tuple[bool, int, Limit, int] | None = None
    for limit in terms.limits:
        ask, account = asked[limit.kind], accounts.by_scope[limit.scope]
        excess = account.counts[limit.kind] + ask - limit.amount
        if ask and excess > 0:
            retry_ms = _wait_ms(record, terms, limit.kind, account, excess)
            refused = (ask > limit.amount, retry_ms, limit, account.counts[limit.kind])
            worst = refused if worst is None else max(worst, refused)
    if worst is None:
        return None
    never, retry_ms, limit, used = worst
    return QuotaRefusal(
        kind=cast(LimitKind.ValueType, limit.kind),
        scope=cast(LimitScope.ValueType, limit.scope),
        model=limit.model,
        limit=limit.amount,
        used=as_uint64(used),
        requested=asked[limit.kind],
        retry_after_ms=0 if never else record.time_ms + retry_ms,
        never=never,
    )


def _wait_ms(record: QuotaRecord, terms: Terms, kind: int, account: Account, excess: int) -> int:
    """Return how long it takes until at least `excess` of a count is over."""
    if kind == CONCURRENT_REQUESTS:
        return CONCURRENT_RETRY_MS
    if kind in (REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE):
        return account.second_without(kind, excess) * 1000 - record.time_ms
    return _end_ms(terms, kind, account) - record.time_ms


def _end_ms(terms: Terms, kind: int, account: Account) -> int:
    """Return when the day, or the month, of an account is over."""
    if kind == BUDGET_PER_MONTH:
        return terms.calendar.start_of_month_ms(account.date.month + 1)
    return terms.calendar.start_of_day_ms(account.date.day + 1)


def _state(record: QuotaRecord, terms: Terms, limit: Limit, account: Account) -> LimitState:
    kind, used = limit.kind, account.counts[limit.kind]
    if not used:
        reset_ms = 0
    elif kind == CONCURRENT_REQUESTS:
        reset_ms = record.time_ms + CONCURRENT_RETRY_MS
    elif kind in (REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE):
        reset_ms = account.last_second(kind) * 1000
    else:
        reset_ms = _end_ms(terms, kind, account)
    return LimitState(
        kind=cast(LimitKind.ValueType, kind),
        scope=cast(LimitScope.ValueType, limit.scope),
        model=limit.model,
        limit=limit.amount,
        remaining=max(0, limit.amount - used),
        reset_ms=reset_ms,
        used=as_uint64(used),
    )

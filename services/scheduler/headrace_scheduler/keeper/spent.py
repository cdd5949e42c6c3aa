"""What tenants have used today and this month, from control: for a journal that is new.

A journal is new in a new mesh, and where the broker has lost its store: then the day's tokens and
the month's budget would begin again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Protocol

from google.protobuf.message import DecodeError

from headrace.bus import BusError, Messages, subjects
from headrace.internal.v1.own_usage_pb2 import OwnUsageRequest, OwnUsageResponse
from headrace.internal.v1.quota_pb2 import QuotaAccount, QuotaChange, QuotaDate
from headrace_scheduler.quota.terms import KEY, KEY_MODEL, MODEL, TENANT, Terms

log = logging.getLogger(__name__)

ALL_S = 10.0
"""Longest wait for all answers. What is not known by then begins at 0: callers wait meanwhile."""
ANSWER_S = 3.0
AT_ONCE = 8


class Tables(Protocol):
    """`QuotaTables`, as it is used here."""

    def limited_tenants(self) -> set[str]: ...

    def terms(self, tenant: str, key_id: str, model: str) -> Terms: ...


class SpentBefore:
    def __init__(self, messages: Messages, tables: Tables) -> None:
        self._messages, self._tables = messages, tables

    async def changes(self, now_ms: int) -> list[QuotaChange]:
        """Return what the tenants that have limits have used of this day and this month."""
        found: list[QuotaChange] = []
        left = sorted(self._tables.limited_tenants())
        missing = len(left)

        async def ask_one_after_the_other() -> None:
            nonlocal missing
            while left:
                accounts = await self._accounts(left.pop(), now_ms)
                if accounts is not None:
                    found.extend(QuotaChange(spent=each) for each in accounts)
                    missing -= 1

        try:
            async with asyncio.timeout(ALL_S), asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(ask_one_after_the_other())
        except TimeoutError:
            pass
        if missing:
            log.warning("quota.spent_unknown", extra={"tenants": missing, "why": "no answer"})
        elif found:
            log.info("quota.spent_known", extra={"accounts": len(found)})
        return found

    async def _accounts(self, tenant: str, now_ms: int) -> list[QuotaAccount] | None:
        terms = self._tables.terms(tenant, "", "")
        date = terms.calendar.date(now_ms)
        begins = (
            terms.calendar.start_of_day_ms(date.day),
            terms.calendar.start_of_month_ms(date.month),
        )
        used: list[OwnUsageResponse] = []
        for since_ms in begins:
            asked = OwnUsageRequest(tenant=tenant, since_ms=since_ms, in_parts=True)
            try:
                answer = await self._messages.request(
                    subjects.OWN_USAGE, asked.SerializeToString(), timeout_s=ANSWER_S
                )
                used.append(OwnUsageResponse.FromString(answer))
            except (BusError, DecodeError):
                return None
        accounts = _Accounts(terms.owner(tenant), QuotaDate(day=date.day, month=date.month))
        accounts.add_day(used[0])
        accounts.add_month(used[1])
        return list(accounts)


class _Accounts:
    """Of one tenant, its keys and models."""

    def __init__(self, owner: str, date: QuotaDate) -> None:
        self._owner, self._date = owner, date
        self._found: dict[tuple[int, str, str], QuotaAccount] = {}

    def __iter__(self) -> Iterator[QuotaAccount]:
        return iter(self._found.values())

    def add_day(self, used: OwnUsageResponse) -> None:
        for part in used.parts:
            for account in self._charged(part.key_id, part.model):
                account.day_requests += part.requests
                if part.batch:
                    account.day_batch_tokens += part.tokens
                else:
                    account.day_tokens += part.tokens

    def add_month(self, used: OwnUsageResponse) -> None:
        for part in used.parts:
            for account in self._charged(part.key_id, part.model):
                account.month_cost_nanos += part.cost_nanos

    def _charged(self, key_id: str, model: str) -> Iterator[QuotaAccount]:
        yield self._account(TENANT, self._owner, "")
        yield self._account(MODEL, self._owner, model)
        if key_id:
            yield self._account(KEY, key_id, "")
            yield self._account(KEY_MODEL, key_id, model)

    def _account(self, scope: int, owner: str, model: str) -> QuotaAccount:
        key = scope, owner, model
        if key not in self._found:
            self._found[key] = QuotaAccount(
                scope=scope,  # type: ignore[arg-type]  # an int, as in `Account`
                owner=owner,
                model=model,
                date=self._date,
            )
        return self._found[key]

"""The record of all quotas: what is charged, reserved and settled. Pure.

It changes by entries of the journal alone, so whoever applies the same entries has the same record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from headrace.internal.v1.quota_pb2 import (
    ChargeQuota,
    QuotaAccount,
    QuotaChange,
    QuotaDate,
    QuotaEntry,
    QuotaReservation,
    SettledReservations,
    SettleQuota,
)
from headrace_scheduler.quota.accounts import CONCURRENT_REQUESTS, Account, amounts
from headrace_scheduler.quota.calendar import Date
from headrace_scheduler.quota.reservations import UNCONFIRMED_MS, Portion, Reservation
from headrace_scheduler.quota.settled_ids import SettledIds
from headrace_scheduler.quota.terms import KEY, KEY_MODEL, MODEL, TENANT
from headrace_scheduler.state.lazy_heap import LazyHeap

PRUNE_MS = 60_000
"""How often accounts of which nothing counts any more are dropped."""


class Accounts(NamedTuple):
    """Those that a caller's use of a model is charged to."""

    by_scope: tuple[Account, ...]
    """At the number of its scope; where there is no key or model, the tenant's."""
    charged: tuple[Account, ...]
    """Each once."""


class QuotaRecord:
    """Bounded by the reservations that are open, and by the tenants, keys and models that were used
    this month."""

    def __init__(self) -> None:
        self.epoch = 0
        self.time_ms = 0
        """It never goes back."""
        self.usage_stream, self.usage_sequence = "", 0
        """The message of the usage stream up to which records are settled."""
        self._accounts: dict[tuple[int, str, str], Account] = {}
        self._of_callers: dict[tuple[str, str, str], Accounts] = {}
        self._reservations: dict[str, Reservation] = {}
        self._expiry = LazyHeap()
        self._settled = SettledIds()
        self._pruned_ms = 0

    def __len__(self) -> int:
        """Return how many reservations are open."""
        return len(self._reservations)

    def reservation(self, reservation_id: str) -> Reservation | None:
        return self._reservations.get(reservation_id)

    def was_settled(self, reservation_id: str) -> bool:
        return reservation_id in self._settled

    def accounts(self, owner: str, key_id: str, model: str, date: Date) -> Accounts:
        """Return the accounts of a caller, as they are now; a date that is past changes nothing.

        Args:
            owner: as `QuotaAccount.owner` of a tenant.
        """
        found = self._of_callers.get((owner, key_id, model))
        if found is None:
            found = self._make_accounts(owner, key_id, model)
            self._of_callers[owner, key_id, model] = found
        second, known = self.time_ms // 1000, found.by_scope[TENANT].date
        if date != known:
            date = date.latest(known)
        for account in found.charged:
            account.advance(second, date)
        return found

    def _make_accounts(self, owner: str, key_id: str, model: str) -> Accounts:
        name, _, created = owner.partition("@")
        is_new = (TENANT, owner, "") not in self._accounts
        if created and is_new and (TENANT, name, "") in self._accounts:
            self._rename(name, owner)
        keys = {TENANT: (TENANT, owner, "")}
        if key_id:
            keys[KEY] = (KEY, key_id, "")
        if model:
            keys[MODEL] = (MODEL, owner, model)
        if key_id and model:
            keys[KEY_MODEL] = (KEY_MODEL, key_id, model)
        made = {scope: self._account(key) for scope, key in keys.items()}
        by_scope = tuple(made.get(scope, made[TENANT]) for scope in range(KEY_MODEL + 1))
        return Accounts(by_scope, tuple(made.values()))

    def _rename(self, name: str, owner: str) -> None:
        """Give a tenant the accounts that an earlier version has named by its name alone."""
        for key in [key for key in self._accounts if key[0] in (TENANT, MODEL) and key[1] == name]:
            account = self._accounts.pop(key)
            account.key = (key[0], owner, key[2])
            self._accounts[account.key] = account
        for each in self._reservations.values():
            if each.owner == name:
                each.owner = owner
        self._of_callers.clear()

    def _account(self, key: tuple[int, str, str]) -> Account:
        if (account := self._accounts.get(key)) is None:
            account = self._accounts[key] = Account(key)
        return account

    def advance(self, now_ms: int) -> None:
        """Let time pass: reservations end whose time is over."""
        self.time_ms = max(self.time_ms, now_ms)
        for reservation_id in self._expiry.pop_until(self.time_ms):
            self._return(self._reservations.pop(reservation_id))
        self._settled.drop_old(self.time_ms // 1000)
        if self.time_ms - self._pruned_ms >= PRUNE_MS:
            self._pruned_ms = self.time_ms
            self._prune()

    def _prune(self) -> None:
        self._of_callers.clear()
        over = [key for key, each in self._accounts.items() if each.is_over(self.time_ms)]
        for key in over:
            del self._accounts[key]

    def apply_entry(self, entry: QuotaEntry) -> None:
        """Apply an entry of the journal that is no part of a snapshot."""
        if entry.epoch > self.epoch:
            self._begin(entry)
        self.advance(entry.time_ms)
        for change in entry.changes:
            self.apply(change)
        if entry.usage_stream:
            self.usage_stream, self.usage_sequence = entry.usage_stream, entry.usage_sequence

    def _begin(self, entry: QuotaEntry) -> None:
        """Another keeper: while there was none, no gateway could confirm what it had reserved."""
        self.epoch = entry.epoch
        for each in self._reservations.values():
            if not each.confirmed:
                each.expire_ms = max(each.expire_ms, entry.time_ms + UNCONFIRMED_MS)
                self._expiry.put(each.reservation_id, each.expire_ms)

    def apply(self, change: QuotaChange) -> None:
        """Apply a change, now."""
        match change.WhichOneof("change"):
            case "charge":
                self._charge(change.charge)
            case "settle":
                self._settle(change.settle)
            case "spent":
                spent = change.spent
                account = self._account((int(spent.scope), spent.owner, spent.model))
                account.advance(self.time_ms // 1000, _date(spent.date))
                account.add(spent)
            case "confirm":
                if (found := self._reservations.get(change.confirm.reservation_id)) is not None:
                    found.confirm()
                    self._expiry.put(found.reservation_id, found.expire_ms)
            case "release":
                found = self._reservations.pop(change.release.reservation_id, None)
                if found is not None:
                    self._expiry.remove(found.reservation_id)
                    self._return(found)

    def _charge(self, charge: ChargeQuota) -> None:
        reserve, date = charge.reserve, _date(charge.date)
        found, requests = self._reservations.get(reserve.reservation_id), 0
        if found is None:
            found, requests = Reservation(reserve, charge.owner, self.time_ms), 1
            self._reservations[reserve.reservation_id] = found
        tokens, cost = found.extend(reserve, charge.cost_nanos)
        self._expiry.put(found.reservation_id, found.expire_ms)
        accounts = self.accounts(found.owner, found.key_id, found.model, date)
        date = accounts.by_scope[TENANT].date
        charged = amounts(
            requests=requests, tokens=tokens, cost=cost, batch=found.batch, is_part=found.is_part
        )
        for account in accounts.charged:
            account.charge(charged)
        found.add_portion(Portion(self.time_ms // 1000, date, tokens, cost))

    def _settle(self, settle: SettleQuota) -> None:
        found = self._reservations.pop(settle.reservation_id, None)
        tokens, cost = settle.input_tokens + settle.output_tokens, settle.cost_nanos
        requests = 0
        if found is not None:
            self._expiry.remove(found.reservation_id)
            self._refund(found, found.tokens - tokens, found.cost - cost)
            tokens, cost = tokens - found.tokens, cost - found.cost
        elif self.was_settled(settle.reservation_id):
            return
        else:
            requests = 1
        if settle.reservation_id:
            self._settled.add(settle.reservation_id, self.time_ms // 1000)
        if requests or tokens > 0 or cost > 0:
            self._charge_late(settle, requests, max(0, tokens), max(0, cost))

    def _charge_late(self, settle: SettleQuota, requests: int, tokens: int, cost: int) -> None:
        owner = settle.owner or settle.tenant
        accounts = self.accounts(owner, settle.key_id, settle.model, _date(settle.date))
        charged = amounts(requests=requests, tokens=tokens, cost=cost, batch=settle.batch)
        for account in accounts.charged:
            account.charge(charged)
            if requests:
                account.end_request(batch=settle.batch)

    def _return(self, found: Reservation) -> None:
        """Return all of a reservation that is no longer open, its request included."""
        self._refund(found, found.tokens, found.cost)
        first = found.portions[0]
        returned = amounts(requests=1, tokens=0, cost=0, batch=found.batch, is_part=found.is_part)
        for account in self._charged_accounts(found):
            account.refund(returned, first.second, first.date)

    def _refund(self, found: Reservation, tokens: int, cost: int) -> None:
        """Return these of a reservation, and that it is under way."""
        accounts = self._charged_accounts(found)
        for portion, of_tokens, of_cost in found.surplus(tokens, cost):
            returned = amounts(requests=0, tokens=of_tokens, cost=of_cost, batch=found.batch)
            for account in accounts:
                account.refund(returned, portion.second, portion.date)
        for account in accounts:
            account.end_request(batch=found.batch)

    def _charged_accounts(self, found: Reservation) -> tuple[Account, ...]:
        return self.accounts(found.owner, found.key_id, found.model, _NO_DATE).charged

    def store(self) -> Iterator[QuotaAccount | QuotaReservation | SettledReservations]:
        """Yield all of it but epoch, time and place in the usage, which each entry has."""
        for account in self._accounts.values():
            if not account.is_over(self.time_ms):
                yield account.store(self.time_ms)
        for reservation in self._reservations.values():
            yield reservation.store()
        yield from self._settled.store()

    @classmethod
    def load(cls, parts: Sequence[QuotaEntry]) -> QuotaRecord:
        """Return the record that the parts of a snapshot hold, which `store` has yielded."""
        record, last = cls(), parts[-1]
        record.epoch, record.time_ms = last.epoch, last.time_ms
        record.usage_stream, record.usage_sequence = last.usage_stream, last.usage_sequence
        for part in (entry.snapshot for entry in parts):
            for account in map(Account.load, part.accounts):
                record._accounts[account.key] = account
            for reservation in map(Reservation.load, part.reservations):
                record._reservations[reservation.reservation_id] = reservation
                record._expiry.put(reservation.reservation_id, reservation.expire_ms)
            for settled in part.settled:
                record._settled.load(settled)
        for each in record._reservations.values():
            for account in record._charged_accounts(each):
                account.begin_request(batch=each.batch)
        return record

    def check_integrity(self) -> None:
        """Raise AssertionError unless accounts and reservations agree."""
        self._expiry.check_integrity(set(self._reservations))
        under_way = Counter[tuple[int, str, str]]()
        for each in self._reservations.values():
            assert sum(portion.tokens for portion in each.portions) == each.tokens
            assert sum(portion.cost for portion in each.portions) == each.cost
            if not each.batch:
                under_way.update(account.key for account in self._charged_accounts(each))
        for key, account in self._accounts.items():
            account.check_integrity()
            assert account.counts[CONCURRENT_REQUESTS] == under_way[key]


_NO_DATE = Date(0, 0)


def _date(date: QuotaDate) -> Date:
    return Date(date.day, date.month)

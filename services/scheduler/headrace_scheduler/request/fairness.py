"""Who of a lane's tenants is served next: the one that has had least, by its weight.

Virtual token counters after Sheng et al., "Fairness in Serving Large Language
Models" (OSDI 2024), Algorithm 2, with the length prediction of their section 4.3.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from headrace_scheduler.base.settings import SchedulerSettings

DEFAULT_TENANT = "default"
EXPECTED_GAIN = 0.2
"""How far an end moves what is expected of the next: the last five count most, as in the paper."""


@dataclass(slots=True, eq=False)
class Account:
    """What one tenant has had of one lane, in cost by weight."""

    tenant: str
    weight: float
    counter: float = 0.0
    turn: int = 0
    """Of equals, who came to wait first goes first."""
    expected_output: float | None = None
    """Tokens of its requests lately; None while none has ended."""
    waiting: list[tuple[int, str]] = field(default_factory=list)
    """(place in the stream, request id), oldest first."""
    slots: int = 0
    """Wanted by these."""

    @property
    def key(self) -> tuple[float, int, str]:
        return self.counter, self.turn, self.tenant


class Accounts:
    """The accounts of one lane, those with something waiting in the order of their turns.

    A tenant that comes to wait is lifted to the least that any other who waits has
    had: time away earns nothing. The accounts kept are those that wait and the
    `max_tenants` that stopped last; who was forgotten begins as a newcomer.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.turns: list[tuple[float, int, str]] = []
        """Keys of those that wait, the next first."""
        self._waiting: dict[str, Account] = {}
        self._idle: OrderedDict[str, Account] = OrderedDict()
        self._left_at = 0.0
        """Counter of the last that stopped waiting."""
        self._next_turn = 0

    def __getitem__(self, tenant: str) -> Account:
        """Of one that waits."""
        return self._waiting[tenant]

    def find(self, tenant: str) -> Account:
        """Of anybody; begun if there is none."""
        known = self._waiting.get(tenant) or self._idle.get(tenant)
        return known or self._remember(
            Account(tenant, self.settings.tenant_weights.get(tenant, 1.0))
        )

    def put(self, account: Account, key: tuple[int, str]) -> None:
        """One of the tenant's requests waits."""
        if not account.waiting:
            account.counter = max(account.counter, self.least)
            self._next_turn += 1
            account.turn = self._next_turn
            self._idle.pop(account.tenant, None)
            self._waiting[account.tenant] = account
            insort(self.turns, account.key)
        insort(account.waiting, key)

    @property
    def least(self) -> float:
        """That any who waits has had; a newcomer is lifted to it."""
        return self.turns[0][0] if self.turns else self._left_at

    def __iter__(self) -> Iterator[Account]:
        """All that are kept, in no order."""
        return chain(self._waiting.values(), self._idle.values())

    def remove(self, account: Account, key: tuple[int, str]) -> None:
        """It waits no more."""
        at = bisect_left(account.waiting, key)
        assert account.waiting[at] == key
        del account.waiting[at]
        if not account.waiting:
            del self.turns[bisect_left(self.turns, account.key)]
            del self._waiting[account.tenant]
            self._left_at = account.counter
            self._remember(account)

    def _remember(self, account: Account) -> Account:
        self._idle[account.tenant] = account
        if len(self._idle) > self.settings.max_tenants:
            self._idle.popitem(last=False)
        return account

    def charge(self, account: Account, cost: float) -> None:
        """Count `cost` as had; less than 0 gives back what was charged too much."""
        if not cost:
            return
        if account.waiting:
            del self.turns[bisect_left(self.turns, account.key)]
        account.counter += cost / account.weight
        if account.waiting:
            insort(self.turns, account.key)

    @property
    def known(self) -> int:
        """Accounts that are kept."""
        return len(self._waiting) + len(self._idle)

    def check_integrity(self) -> None:
        """Raise AssertionError if the turns are not those of the accounts that wait."""
        assert self.turns == sorted(a.key for a in self._waiting.values())
        assert all(a.waiting for a in self._waiting.values())
        assert not any(a.waiting for a in self._idle.values())
        assert len(self._idle) <= self.settings.max_tenants


def moved(expected: float | None, seen: float) -> float:
    """What is expected after one that made `seen`."""
    return float(seen) if expected is None else expected + EXPECTED_GAIN * (seen - expected)

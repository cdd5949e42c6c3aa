"""Fair shares of a lane: the tenant that has received least, by its weight, is served next.

Virtual token counters after Sheng et al., "Fairness in Serving Large Language
Models" (OSDI 2024), Algorithm 2, with the length prediction of their section 4.3.
For example, of tenants a with weight 1 and b with weight 2, each request costing 100:

    counters a 0, b 0     a is served (it came to wait first)   a 100
    counters a 100, b 0   b is served twice                     b 50, then 100
    counters a 100, b 100 a is served again                     a 200

So b is served twice as often. Weights may change while requests wait: what has been received keeps
the weight that it was charged at. A tenant c that comes to wait now starts at 100, the least of
those that wait: the time that it was away earns it nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from headrace_scheduler.base.settings import SchedulerSettings

DEFAULT_TENANT = "default"
SMOOTHING = 0.2
"""How far one value moves a moving average: the last five count most, as in the paper."""


@dataclass(slots=True, eq=False)
class Account:
    """What one tenant has received of one lane, in cost divided by its weight."""

    tenant: str
    weight: float
    counter: float = 0.0
    turn: int = 0
    """Order in which tenants came to wait; it decides between equal counters."""
    expected_output: float | None = None
    """Average output tokens of its recent requests; None while none has ended."""
    waiting: list[tuple[int, str]] = field(default_factory=list)
    """(place in the stream, request id) of its waiting requests, oldest first."""
    slots: int = 0
    """Slots that these need."""

    @property
    def key(self) -> tuple[float, int, str]:
        return self.counter, self.turn, self.tenant


class Accounts:
    """The accounts of one lane; those with waiting requests in the order of their turns.

    A tenant that comes to wait is raised to the least counter of those that wait. The
    accounts kept are those with waiting requests and the `max_tenants` that stopped waiting
    last; a tenant whose account was dropped starts anew.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self._weights: Mapping[str, float] = {}
        self.turns: list[tuple[float, int, str]] = []
        """Keys of the accounts that wait, the next one first."""
        self._waiting: dict[str, Account] = {}
        self._idle: OrderedDict[str, Account] = OrderedDict()
        self._last_counter = 0.0
        """Counter of the account that stopped waiting last."""
        self._next_turn = 0

    def __getitem__(self, tenant: str) -> Account:
        """Return the account of a tenant that waits."""
        return self._waiting[tenant]

    def find(self, tenant: str) -> Account:
        """Return the account of any tenant; it is made if there is none."""
        known = self._waiting.get(tenant) or self._idle.get(tenant)
        return known or self._keep_idle(Account(tenant, self.weight(tenant)))

    def weight(self, tenant: str) -> float:
        """Return the weight of any tenant; of one that is not named, 1."""
        return self._weights.get(tenant, 1.0)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Charge tenants by these weights, which are greater than 0, from now on."""
        self._weights = weights
        for account in self:
            account.weight = self.weight(account.tenant)

    def put(self, account: Account, key: tuple[int, str]) -> None:
        """Add a waiting request of the tenant."""
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
        """Least counter of the tenants that wait; a newcomer is raised to it."""
        return self.turns[0][0] if self.turns else self._last_counter

    def __iter__(self) -> Iterator[Account]:
        """Iterate over all accounts that are kept, in no order."""
        return chain(self._waiting.values(), self._idle.values())

    def remove(self, account: Account, key: tuple[int, str]) -> None:
        """Remove a waiting request of the tenant."""
        at = bisect_left(account.waiting, key)
        assert account.waiting[at] == key
        del account.waiting[at]
        if not account.waiting:
            del self.turns[bisect_left(self.turns, account.key)]
            del self._waiting[account.tenant]
            self._last_counter = account.counter
            self._keep_idle(account)

    def _keep_idle(self, account: Account) -> Account:
        self._idle[account.tenant] = account
        if len(self._idle) > self.settings.max_tenants:
            self._idle.popitem(last=False)
        return account

    def charge(self, account: Account, cost: float) -> None:
        """Add a cost to an account; a negative one refunds what was charged too much."""
        if not cost:
            return
        if account.waiting:
            del self.turns[bisect_left(self.turns, account.key)]
        account.counter += cost / account.weight
        if account.waiting:
            insort(self.turns, account.key)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._idle)

    def check_integrity(self) -> None:
        """Raise AssertionError if the turns are not those of the accounts that wait."""
        assert self.turns == sorted(a.key for a in self._waiting.values())
        assert all(a.waiting for a in self._waiting.values())
        assert not any(a.waiting for a in self._idle.values())
        assert len(self._idle) <= self.settings.max_tenants


def moving_average(average: float | None, value: float) -> float:
    """Return an average moved towards a new value; the first value is the average."""
    return float(value) if average is None else average + SMOOTHING * (value - average)

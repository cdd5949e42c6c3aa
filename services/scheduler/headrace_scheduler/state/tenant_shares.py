"""How many requests of a lane go before a given one, by the shares of their tenants.

For example, three tenants of weight 1 wait, each with requests that cost 100:

    TenantShare("a", counter=0, request_cost=100, waiting=3)
    TenantShare("b", counter=150, request_cost=100, waiting=2)
    TenantShare("c", counter=400, request_cost=100, waiting=9)

Before a's third request (two of its own go first) a's counter is 0 + 2 * 100 = 200. Until then
b, at 150, is served once; after that it is at 250. c, at 400, is not. So `ahead` is 2 + 1 = 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, inf


@dataclass(frozen=True, slots=True)
class TenantShare:
    """The position of one tenant in a lane, which is served by `fairness.Accounts`."""

    tenant: str
    counter: float
    """Cost by weight that it has received; if it has nothing waiting, what it would start at."""
    request_cost: float
    """What one of its requests adds to the counter."""
    waiting: int = 0
    """Number of its waiting requests."""
    slots: int = 0
    """Slots that these need."""

    @property
    def slots_each(self) -> float:
        return self.slots / self.waiting if self.waiting else 1.0

    def counter_after(self, place: int) -> float:
        """Return its counter after `place` of its requests have started."""
        return self.counter + place * self.request_cost

    def requests_up_to(self, level: float) -> float:
        """Return how many requests it may start before a tenant whose counter is `level`.

        Between equal counters it goes first, because the tenant that is estimated comes last.
        """
        if level < self.counter:
            return 0.0
        cost = self.request_cost
        return 1.0 + floor((level - self.counter) / cost) if cost > 0.0 else inf


@dataclass(frozen=True, slots=True)
class QueueMark:
    """The position of one waiting request."""

    sequence: int
    """Its place in the stream."""
    ahead: int
    """Requests of its lane that go before it, of any tenant."""


def ahead(own: TenantShare, others: Iterable[TenantShare], place: int) -> int:
    """Return how many waiting requests go before the one with `place` of its own before it."""
    level = own.counter_after(place)
    return place + sum(int(min(o.waiting, o.requests_up_to(level))) for o in others)


def sample_ranks(waiting: int, size: int) -> list[int]:
    """Return all places, or `size` at even distances, the first and the last among them."""
    last = waiting - 1
    return list(range(waiting)) if last < size else [last * i // (size - 1) for i in range(size)]

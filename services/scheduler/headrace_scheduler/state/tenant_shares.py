"""Where the tenants of a lane stand, and so how many go before a request of one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, inf


@dataclass(frozen=True, slots=True)
class TenantShare:
    """One tenant of a lane. Shares of service are by `fairness.Accounts`."""

    tenant: str
    counter: float
    """What it has had; of one that has nothing waiting, what it will be taken to have had."""
    request_cost: float
    """What a request of it adds to that."""
    waiting: int = 0
    """Requests of it."""
    slots: int = 0
    """That these want."""

    @property
    def slots_each(self) -> float:
        return self.slots / self.waiting if self.waiting else 1.0

    def counter_after(self, place: int) -> float:
        """Its counter when its request with so many of its own before it is next in turn."""
        return self.counter + place * self.request_cost

    def requests_up_to(self, counter_after: float) -> float:
        """Requests that it may start before another tenant that is at this level. Of equals it
        is taken to be the first, for whoever asks has come last."""
        if counter_after < self.counter:
            return 0.0
        return (
            1.0 + floor((counter_after - self.counter) / self.request_cost)
            if self.request_cost > 0.0
            else inf
        )


@dataclass(frozen=True, slots=True)
class QueueMark:
    """Of a request that waits."""

    sequence: int
    """Its place in the stream."""
    ahead: int
    """Requests of its lane that go before it, of whatever tenant."""


def ahead(own: TenantShare, others: Iterable[TenantShare], place: int) -> int:
    """How many of those that wait go before the request with `place` of its own before it."""
    counter_after = own.counter_after(place)
    return place + sum(int(min(o.waiting, o.requests_up_to(counter_after))) for o in others)


def sample_ranks(waiting: int, size: int) -> list[int]:
    """Places to tell of: all, or `size` at even distances, the first and the last among them."""
    last = waiting - 1
    return list(range(waiting)) if last < size else [last * i // (size - 1) for i in range(size)]

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
    step: float
    """What a request of it adds to that."""
    waiting: int = 0
    """Requests of it."""
    slots: int = 0
    """That these want."""

    @property
    def slots_each(self) -> float:
        return self.slots / self.waiting if self.waiting else 1.0

    def level(self, place: int) -> float:
        """Its counter when its request with so many of its own before it is next in turn."""
        return self.counter + place * self.step

    def turns_up_to(self, level: float) -> float:
        """Requests that it may start before another tenant that is at this level. Of equals it
        is taken to be the first, for whoever asks has come last."""
        if level < self.counter:
            return 0.0
        return 1.0 + floor((level - self.counter) / self.step) if self.step > 0.0 else inf


@dataclass(frozen=True, slots=True)
class QueueMark:
    """Of a request that waits."""

    sequence: int
    """Its place in the stream."""
    ahead: int
    """Requests of its lane that go before it, of whatever tenant."""


def ahead(own: TenantShare, others: Iterable[TenantShare], place: int) -> int:
    """How many of those that wait go before the request with `place` of its own before it."""
    level = own.level(place)
    return place + sum(int(min(o.waiting, o.turns_up_to(level))) for o in others)


def ranks(waiting: int, size: int) -> list[int]:
    """Places to tell of: all, or `size` at even distances, the first and the last among them."""
    last = waiting - 1
    return list(range(waiting)) if last < size else [last * i // (size - 1) for i in range(size)]

"""How long a request that arrives now will wait, from rates alone.

The wait follows from how fast slots become free (`ServiceRate`), what is ahead (`QueueAhead`)
and what else will arrive (`Arrivals`). For example, 8 slots that are each freed every 4 s, a
newcomer of the standard lane with 6 slots of its own lane ahead of it, 4 slots waiting in the
interactive lane, into which 0.5 slots arrive per second, and floor_share 0.1:

    slots_per_s = 8 / 4                             2.0 slots become free per second
    floor_per_s = 0.1 * 2.0                         0.2 of them go to the standard lane always
    drain_s     = 4 / (2.0 - 0.2 - 0.5)             3.08 s until the interactive lane is empty
    served      = 0.2 * 3.08                        0.62 slots of the standard lane meanwhile
    after_per_s = 2.0 - 0.5                         1.5 slots per second for it from then on
    wait_s      = 3.08 + (6 + 1 - 0.62) / 1.5       7.3 s

Bulk requests waiting below would take another tenth of the slots. Other tenants of the lane that
are due before the newcomer are counted too; how many of them are grows with the wait itself, so
`estimate_wait_s` searches for the wait at which both agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_ENDS = 4.0
"""With fewer ends a rate is not known."""
KEPT_ENDS = 32.0
"""This many ends are kept whatever their age: where answers take minutes, the last half minute
has seen too few."""


class ServiceRate:
    """Ends per slot and second, recent ones counting most.

    A slot's time counts while the slot is taken, and while a request waits for it
    though it is free: the time between an end and the next start is part of how
    slow the service is. The rate is per slot, so that a fleet that grows counts as
    faster at once.

    Between two waves of ends the rate would sink from moment to moment. So time since
    the last end counts only beyond one whole turn of all slots, which means a stall.
    """

    def __init__(self, *, half_life_s: float, now_s: float) -> None:
        self._half_life_s = half_life_s
        self._ends = 0.0
        self._slot_s = 0.0
        """Time of all slots together, up to the last end."""
        self._since_slot_s = 0.0
        """The same since the last end."""
        self._slots = 0
        self._at_s = now_s

    def advance(self, *, now_s: float, slots: int) -> None:
        """Count the time that has passed; `slots` are in use, or requested, from now on."""
        passed_s = max(0.0, now_s - self._at_s)
        self._since_slot_s += passed_s * self._slots
        if self._slots and self._ends > KEPT_ENDS:
            keep = max(0.5 ** (passed_s / self._half_life_s), KEPT_ENDS / self._ends)
            self._ends *= keep
            self._slot_s *= keep
        self._at_s, self._slots = now_s, slots

    def add_ends(self, slots: int) -> None:
        """Count slots that have become free; call after `advance`."""
        if slots:
            self._ends += slots
            self._slot_s += self._since_slot_s
            self._since_slot_s = 0.0

    @property
    def per_slot_s(self) -> float | None:
        """Ends per slot and second; None while unknown."""
        if self._ends < MIN_ENDS or self._slot_s <= 0.0:
            return None
        turn_s = self._slot_s / self._ends
        stalled_slot_s = max(0.0, self._since_slot_s - turn_s * self._slots)
        return self._ends / (self._slot_s + stalled_slot_s)


SILENT_GAPS = 3.0
"""Arrivals have stopped, or nearly, after this many times the usual gap without one."""


class Arrivals:
    """Slots requested per second, recent arrivals counting most; few if the last is long ago."""

    def __init__(self, *, half_life_s: float, now_s: float) -> None:
        """Count arrivals from `now_s` on."""
        self._half_life_s = half_life_s
        self._slots = self._last = 0.0
        self._since_s = self._at_s = now_s

    def add(self, slots: int, *, now_s: float) -> None:
        self._slots = self._decayed(now_s) + slots
        self._at_s, self._last = now_s, float(slots)

    def per_s(self, now_s: float) -> float:
        unseen = 0.5 ** ((now_s - self._since_s) / self._half_life_s)
        window_s = self._half_life_s / math.log(2) * (1.0 - unseen)
        recent_per_s = self._decayed(now_s) / window_s if window_s > 0.0 else 0.0
        silent_s = now_s - self._at_s
        if silent_s * recent_per_s <= SILENT_GAPS * self._last:
            return recent_per_s
        return SILENT_GAPS * self._last / silent_s

    def _decayed(self, now_s: float) -> float:
        return float(self._slots * 0.5 ** ((now_s - self._at_s) / self._half_life_s))


@dataclass(frozen=True, slots=True)
class CompetingTenant:
    """Another tenant of the newcomer's lane, in slots."""

    due: float
    """Slots that it may take before the newcomer, if it requests as many."""
    waiting: float
    per_s: float
    """Slots per second that its future requests need."""

    def served_within(self, wait_s: float) -> float:
        """Return the slots that it has taken before a newcomer that waits this long."""
        return min(self.due, self.waiting + self.per_s * wait_s)


@dataclass(frozen=True, slots=True)
class QueueAhead:
    """What goes before a newcomer, in slots."""

    urgent: float
    """Needed by the requests that wait in more urgent lanes."""
    own: float
    """Needed by the waiting requests of its own tenant in its own lane."""
    urgent_per_s: float
    """Needed per second by future requests of more urgent lanes."""
    lanes_below: int
    """Less urgent lanes in which requests wait, and which get their floor."""
    competitors: tuple[CompetingTenant, ...] = ()
    free: float = 0.0
    """Free slots: so many of those ahead, the most urgent first, do not add to the wait."""

    @property
    def finds_free_slot(self) -> bool:
        return self.urgent + self._in_lane(0.0) + 1.0 <= self.free

    def _in_lane(self, wait_s: float) -> float:
        return self.own + sum(each.served_within(wait_s) for each in self.competitors)

    def at_wait(self, wait_s: float) -> QueueAhead:
        """Return this with its competitors as of a wait, less those that find free slots."""
        urgent = max(0.0, self.urgent - self.free)
        lane = self._in_lane(wait_s) - max(0.0, self.free - self.urgent)
        return QueueAhead(urgent, max(0.0, lane), self.urgent_per_s, self.lanes_below)


HALVINGS = 14
SHORTEST_S = 0.001


def estimate_wait_s(queue: QueueAhead, *, slots_per_s: float, floor_share: float) -> float | None:
    """Return the wait for one more slot behind a queue; None if it may be endless.

    Competing tenants that request less than their share go before the newcomer whenever they
    arrive, so the longer it waits, the more go before it. The estimate is the wait at which
    both agree.
    """

    def after(wait: float) -> float | None:
        return _fluid_wait_s(queue.at_wait(wait), slots_per_s=slots_per_s, floor_share=floor_share)

    low_s, high_s = after(0.0), after(math.inf)
    if low_s is None or high_s is None or low_s == high_s:
        return high_s
    low_s = max(low_s, SHORTEST_S)
    for _ in range(HALVINGS if low_s < high_s else 0):
        middle_s = math.sqrt(low_s * high_s)  # The two may be magnitudes apart.
        found_s = after(middle_s)
        if found_s is None or found_s > middle_s:
            low_s = middle_s
        else:
            high_s = middle_s
    return high_s


def _fluid_wait_s(queue: QueueAhead, *, slots_per_s: float, floor_share: float) -> float | None:
    """Return the wait where no slot is free and slots flow evenly; None if it may be endless.

    As `form_batch` does, it serves more urgent lanes first, and gives each lane below in which
    requests wait the share `floor_share` of the slots.
    """
    requested = queue.own + 1.0
    slots_per_s *= max(floor_share, 1.0 - queue.lanes_below * floor_share)
    floor_per_s = slots_per_s * floor_share
    after_per_s = max(slots_per_s - queue.urgent_per_s, floor_per_s)
    if queue.urgent <= 0.0:
        return _quotient(requested, after_per_s)
    by_floor_s = _quotient(requested, floor_per_s)
    drain_s = _quotient(queue.urgent, slots_per_s - floor_per_s - queue.urgent_per_s)
    if drain_s is None or (by_floor_s is not None and by_floor_s <= drain_s):
        return by_floor_s
    rest_s = _quotient(requested - floor_per_s * drain_s, after_per_s)
    return None if rest_s is None else drain_s + rest_s


def _quotient(amount: float, per_s: float) -> float | None:
    return amount / per_s if per_s > 0.0 else None

"""How fast slots become free, who is ahead, and so how long one that comes now will wait."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_ENDS = 4.0
"""Fewer say nothing of a rate."""
KEPT_ENDS = 32.0
"""So many are never forgotten for their age alone: where answers take minutes, the last half
minute has seen too few."""


class ServiceRate:
    """Ends per slot and second, recent ones counting most.

    A slot's time counts while it is taken, and while somebody waits for it though it
    is not: what is lost between an end and the next start is part of how slow the
    service is. Per slot, so that a fleet that grows is at once believed to be faster.

    Between two waves of ends the rate would sink from moment to moment. So time since
    the last end counts only beyond one whole turn of all slots, which says: it stalls.
    """

    def __init__(self, *, half_life_s: float, now_s: float) -> None:
        self._half_life_s = half_life_s
        self._ends = 0.0
        self._slot_s = 0.0
        """Of all slots together, up to the last end."""
        self._since_slot_s = 0.0
        """Since then."""
        self._slots = 0
        self._at_s = now_s

    def advance(self, *, now_s: float, slots: int) -> None:
        """Time has passed; `slots` are in use from now on, or would be but for the delay."""
        passed_s = max(0.0, now_s - self._at_s)
        self._since_slot_s += passed_s * self._slots
        if self._slots and self._ends > KEPT_ENDS:
            keep = max(0.5 ** (passed_s / self._half_life_s), KEPT_ENDS / self._ends)
            self._ends *= keep
            self._slot_s *= keep
        self._at_s, self._slots = now_s, slots

    def ended(self, slots: int) -> None:
        """So many have become free; call after `advance`."""
        if slots:
            self._ends += slots
            self._slot_s += self._since_slot_s
            self._since_slot_s = 0.0

    @property
    def per_slot_s(self) -> float | None:
        """None while unknown."""
        if self._ends < MIN_ENDS or self._slot_s <= 0.0:
            return None
        turn_s = self._slot_s / self._ends
        stalled_slot_s = max(0.0, self._since_slot_s - turn_s * self._slots)
        return self._ends / (self._slot_s + stalled_slot_s)


SILENT_GAPS = 3.0
"""Nobody has come for so many times the usual gap: then they have stopped, or nearly."""


class Arrivals:
    """Slots asked for per second, recent ones counting most; few, where the last came long ago."""

    def __init__(self, *, half_life_s: float, now_s: float) -> None:
        """`now_s` is since when they are counted."""
        self._half_life_s = half_life_s
        self._slots = self._last = 0.0
        self._since_s = self._at_s = now_s

    def on_arrival(self, slots: int, *, now_s: float) -> None:
        self._slots = self._kept(now_s) + slots
        self._at_s, self._last = now_s, float(slots)

    def per_s(self, now_s: float) -> float:
        unseen = 0.5 ** ((now_s - self._since_s) / self._half_life_s)
        window_s = self._half_life_s / math.log(2) * (1.0 - unseen)
        lately_per_s = self._kept(now_s) / window_s if window_s > 0.0 else 0.0
        silent_s = now_s - self._at_s
        if silent_s * lately_per_s <= SILENT_GAPS * self._last:
            return lately_per_s
        return SILENT_GAPS * self._last / silent_s

    def _kept(self, now_s: float) -> float:
        return float(self._slots * 0.5 ** ((now_s - self._at_s) / self._half_life_s))


@dataclass(frozen=True, slots=True)
class CompetingTenant:
    """Another tenant of the newcomer's lane, counted in slots."""

    due: float
    """Its turn comes so often before the newcomer's, if it asks so often."""
    waiting: float
    per_s: float
    """Asked for by those of it that will come."""

    def before(self, wait_s: float) -> float:
        """What it has taken, if the newcomer waits so long."""
        return min(self.due, self.waiting + self.per_s * wait_s)


@dataclass(frozen=True, slots=True)
class QueueAhead:
    """What stands between a newcomer and its slot, counted in slots."""

    urgent: float
    """Wanted by those that wait in more urgent lanes."""
    own: float
    """By those of its own tenant in its own lane."""
    urgent_per_s: float
    """Asked for by those that will come into more urgent lanes."""
    lanes_below: int
    """Less urgent lanes in which somebody waits, and which get their floor."""
    competitors: tuple[CompetingTenant, ...] = ()
    free: float = 0.0
    """Of those ahead, so many find a slot free, the most urgent first: they cost no wait."""

    @property
    def finds_room(self) -> bool:
        return self.urgent + self._in_lane(0.0) + 1.0 <= self.free

    def _in_lane(self, wait_s: float) -> float:
        return self.own + sum(competitor.before(wait_s) for competitor in self.competitors)

    def settled(self, wait_s: float) -> QueueAhead:
        """With its rivals counted as of a wait, and without those that find room."""
        urgent = max(0.0, self.urgent - self.free)
        lane = self._in_lane(wait_s) - max(0.0, self.free - self.urgent)
        return QueueAhead(urgent, max(0.0, lane), self.urgent_per_s, self.lanes_below)


HALVINGS = 14
SHORTEST_S = 0.001


def estimate_wait_s(
    queue_ahead: QueueAhead, *, slots_per_s: float, floor_share: float
) -> float | None:
    """Wait of one more slot behind the crowd and its rivals; None if it may be for ever.

    Rivals that ask for less than their share go before the newcomer whenever they come, so how
    many go before it grows with its wait. It is the wait at which that comes out even.
    """

    def after(wait: float) -> float | None:
        return wait_s(queue_ahead.settled(wait), slots_per_s=slots_per_s, floor_share=floor_share)

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


def wait_s(queue_ahead: QueueAhead, *, slots_per_s: float, floor_share: float) -> float | None:
    """Wait of one more slot behind the crowd, where none is free; None if it may be for ever.

    A fluid: `form_batch` serves more urgent lanes first, and gives each lane below that has
    somebody the share `floor_share` of the places.
    """
    wanted = queue_ahead.own + 1.0
    slots_per_s *= max(floor_share, 1.0 - queue_ahead.lanes_below * floor_share)
    floor_per_s = slots_per_s * floor_share
    after_per_s = max(slots_per_s - queue_ahead.urgent_per_s, floor_per_s)
    if queue_ahead.urgent <= 0.0:
        return _quotient(wanted, after_per_s)
    by_floor_s = _quotient(wanted, floor_per_s)
    drain_s = _quotient(queue_ahead.urgent, slots_per_s - floor_per_s - queue_ahead.urgent_per_s)
    if drain_s is None or (by_floor_s is not None and by_floor_s <= drain_s):
        return by_floor_s
    rest_s = _quotient(wanted - floor_per_s * drain_s, after_per_s)
    return None if rest_s is None else drain_s + rest_s


def _quotient(amount: float, per_s: float) -> float | None:
    return amount / per_s if per_s > 0.0 else None

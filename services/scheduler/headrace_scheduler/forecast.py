"""How long the requests of a model wait: told to gateways, to refused callers, to dashboards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.bus.subjects import PRIORITIES
from headrace_scheduler.estimates import Arrivals, Crowd, Rival, Turnover, wait_of
from headrace_scheduler.fleet import Fleet
from headrace_scheduler.live import LiveRequests
from headrace_scheduler.preempting import Preemption
from headrace_scheduler.requests import Request
from headrace_scheduler.standing import Mark, Standing
from headrace_scheduler.yielding import URGENT

UNKNOWN_WAIT_S = 1.0
"""Said to a refused caller where nothing is known."""
TOLD_TENANTS = 16
"""Of a lane, those of which most wait. Reports go to every gateway several times a second, so
their size is bound whatever waits; and so is how many of those that wait are marked in them."""
MARKS = 64
FEWEST_MARKS = 4
REMEMBERED = 256
"""Tenants of a lane whose arrivals are counted, those that came last."""
FIRST_SEEN_S = 5.0
"""A tenant's arrivals are taken to be of so long at least: the first says nothing of a rate."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Of a request that comes now."""

    wait_s: float
    place_s: float
    """Of it, what the last request before it adds: how often a place becomes free."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Of a tenant in one lane."""

    tenant: str
    """Empty: of any that is not told of by name."""
    waiting: int
    wait: Wait | None
    """Of a request of it that comes now; None while unknown."""
    marks: Sequence[Mark] = ()
    """Of those of it that wait."""


class _Coming:
    """Slots asked for in one lane, by all and by each of its tenants."""

    def __init__(self, half_life_s: float, now_s: float) -> None:
        self._half_life_s = half_life_s
        # Longer: what a lane below gets is what these leave of the service, a small difference.
        self.all = Arrivals(half_life_s=4 * half_life_s, now_s=now_s)
        self._tenants: OrderedDict[str, Arrivals] = OrderedDict()

    def came(self, request: Request, now_s: float) -> None:
        self.all.came(request.slots, now_s=now_s)
        if (of_tenant := self._tenants.get(request.tenant)) is None:
            of_tenant = Arrivals(half_life_s=self._half_life_s, now_s=now_s - FIRST_SEEN_S)
            self._tenants[request.tenant] = of_tenant
            if len(self._tenants) > REMEMBERED:
                self._tenants.popitem(last=False)
        self._tenants.move_to_end(request.tenant)
        of_tenant.came(request.slots, now_s=now_s)

    def per_s(self, now_s: float) -> dict[str, float]:
        return {tenant: each.per_s(now_s) for tenant, each in self._tenants.items()}


class Forecast:
    """Measures with every decision, and estimates when asked."""

    def __init__(
        self, live: LiveRequests, fleet: Fleet, preemption: Preemption, *, now_s: float
    ) -> None:
        self._live, self._fleet, self._preemption = live, fleet, preemption
        half_life_s = live.policy.rate_half_life_s
        self._turnover = Turnover(half_life_s=half_life_s, now_s=now_s)
        self._arrivals = {priority: _Coming(half_life_s, now_s) for priority in PRIORITIES}
        self._in_use, self._ended_slots = 0, live.ended_slots

    def came(self, request: Request, *, now_s: float) -> None:
        """It was let into its lane."""
        self._arrivals[request.priority].came(request, now_s)

    def measure(self, *, now_s: float) -> None:
        """Call with every decision, after it. Where nothing has changed, nothing is reckoned."""
        in_use = self._fleet.slots_in_use(is_wanted=self._live.lanes.has_waiting)
        ended = self._live.ended_slots - self._ended_slots
        if ended or in_use != self._in_use:
            self._turnover.advance(now_s=now_s, slots=in_use)
            self._turnover.ended(ended)
            self._in_use, self._ended_slots = in_use, self._live.ended_slots

    # Asked

    def of_lane(self, priority: str, *, now_s: float) -> Wait | None:
        """Behind all that wait in it now, whose ever they are; None while unknown."""
        lane = self._live.lanes[priority]
        # A request's wait grows with the slots of the last before it, whatever its own.
        last = lane.slots / len(lane) if len(lane) else 1.0
        return _wait(
            self._wait_s(priority, lane.slots, (), now_s),
            self._wait_s(priority, lane.slots - last, (), now_s),
        )

    def of_tenants(self, priority: str, *, now_s: float) -> list[Outlook]:
        """Of those that have most waiting; and of any other, unless some of those wait too."""
        lane = self._live.lanes[priority]
        known = lane.standings()
        told = sorted(known, key=lambda s: (-s.waiting, -s.counter))[:TOLD_TENANTS]
        marks = max(FEWEST_MARKS, MARKS // max(1, sum(s.waiting > 0 for s in told)))
        found = [
            Outlook(
                own.tenant,
                own.waiting,
                self._of_tenant(priority, own, known, now_s),
                lane.marks(known, own, marks),
            )
            for own in told
        ]
        if len(told) == len(known):
            anybody = lane.newcomer("")
            found.append(Outlook("", 0, self._of_tenant(priority, anybody, known, now_s)))
        return found

    def retry_after_full_s(self, priority: str, *, excess: int, now_s: float) -> float:
        """Until `excess` places of a full lane have become free."""
        wait = self.of_lane(priority, now_s=now_s)
        return UNKNOWN_WAIT_S if wait is None else excess * wait.place_s

    def retry_after_s(self, request: Request, *, patience_s: float, now_s: float) -> float:
        """Until one like it, of this patience, would be served within it."""
        lane = self._live.lanes[request.priority]
        known = lane.standings()
        named = (s for s in known if s.tenant == request.tenant)
        own = next(named, None) or lane.newcomer(request.tenant)
        wait = self._of_tenant(request.priority, own, known, now_s)
        if wait is None:
            return UNKNOWN_WAIT_S
        return max(wait.wait_s - patience_s, wait.place_s)

    # Reckoned

    def _of_tenant(
        self, priority: str, own: Standing, known: Sequence[Standing], now_s: float
    ) -> Wait | None:
        coming = self._arrivals[priority].per_s(now_s)
        names = {s.tenant for s in known}
        lane = self._live.lanes[priority]
        others = [s for s in known if s.tenant != own.tenant]
        others += (lane.newcomer(t) for t in coming if t not in names and t != own.tenant)

        def wait_at(place: int) -> float | None:
            rivals = _rivals(others, own.level(place), coming)
            return self._wait_s(priority, place * own.slots_each, rivals, now_s)

        if not own.waiting:
            every = self.of_lane(priority, now_s=now_s)
            whole_s = wait_at(0)
            return None if whole_s is None or every is None else Wait(whole_s, every.place_s)
        return _wait(wait_at(own.waiting), wait_at(own.waiting - 1))

    def _wait_s(
        self, priority: str, own_slots: float, rivals: Sequence[Rival], now_s: float
    ) -> float | None:
        crowd = self._crowd(priority, own_slots, rivals, now_s)
        if crowd.finds_room:
            return 0.0
        if priority == URGENT:
            crowd = replace(crowd, free=crowd.free + self._obtainable_slots)
            if crowd.finds_room:
                return self._preemption.takes_s
        self._turnover.advance(now_s=now_s, slots=self._in_use)
        rate = self._turnover.per_slot_s
        if rate is None:
            return None
        return wait_of(
            crowd,
            slots_per_s=rate * self._fleet.capacity,
            floor_share=self._live.policy.limits.floor_share,
        )

    def _crowd(
        self, priority: str, own_slots: float, rivals: Sequence[Rival], now_s: float
    ) -> Crowd:
        lanes, place = self._live.lanes, PRIORITIES.index(priority)
        above, below = PRIORITIES[:place], PRIORITIES[place + 1 :]
        urgent = sum(lanes[p].slots for p in above)
        if above and below:
            # Bulk requests make way for these, and wait again: before bulk newcomers only.
            urgent -= min(lanes[URGENT].slots, self._obtainable_slots)
        return Crowd(
            urgent=urgent,
            own=own_slots,
            urgent_per_s=sum(self._arrivals[p].all.per_s(now_s) for p in above),
            lanes_below=sum(len(lanes[p]) > 0 for p in below),
            rivals=tuple(rivals),
            free=self._usable_slots(),
        )

    @property
    def _obtainable_slots(self) -> int:
        return self._preemption.obtainable_slots if self._live.policy.preemption else 0

    def _usable_slots(self) -> int:
        """Free ones, unless somebody waits beside them: then they are of no use to him.

        A worker that is being dispatched to is not beside anybody: its answer is on its way,
        and then it takes who waits.
        """
        is_blocked = self._live.lanes.has_waiting and self._fleet.has_room
        return 0 if is_blocked else self._fleet.free_slots()


def _wait(whole_s: float | None, before_s: float | None) -> Wait | None:
    if whole_s is None or before_s is None:
        return None
    return Wait(whole_s, max(0.0, whole_s - before_s))


def _rivals(others: Sequence[Standing], level: float, coming: Mapping[str, float]) -> list[Rival]:
    """Those with one request waiting at most are counted as one, for there may be hundreds: they
    are served as they come."""
    rivals, due, waiting, per_s = [], 0.0, 0.0, 0.0
    for other in others:
        turns = other.turns_up_to(level) * other.slots_each
        asks_per_s = coming.get(other.tenant, 0.0)
        if other.waiting > 1:
            rivals.append(Rival(turns, other.slots, asks_per_s))
        elif turns:
            due, waiting, per_s = due + turns, waiting + other.slots, per_s + asks_per_s
    return [*rivals, Rival(due, waiting, per_s)] if due else rivals

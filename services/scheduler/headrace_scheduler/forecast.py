"""How long the requests of a model wait: told to gateways, to refused callers, to dashboards."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.bus.subjects import PRIORITIES
from headrace_scheduler.estimates import Arrivals, Crowd, Turnover, wait_s
from headrace_scheduler.fleet import Fleet
from headrace_scheduler.live import LiveRequests
from headrace_scheduler.requests import Request

UNKNOWN_WAIT_S = 1.0
"""Said to a refused caller where nothing is known."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Of a request that comes now."""

    wait_s: float
    place_s: float
    """Of it, what the last request before it adds: how often a place of the lane becomes free."""


class Forecast:
    """Measures with every decision, and estimates when asked."""

    def __init__(self, live: LiveRequests, fleet: Fleet, *, now_s: float) -> None:
        self._live, self._fleet = live, fleet
        half_life_s = live.policy.rate_half_life_s
        self._turnover = Turnover(half_life_s=half_life_s, now_s=now_s)
        # Longer: what a lane below gets is what these leave of the service, a small difference.
        seen_s = 4 * half_life_s
        self._arrivals = {p: Arrivals(half_life_s=seen_s, now_s=now_s) for p in PRIORITIES}
        self._ended_slots = live.ended_slots

    def came(self, request: Request, *, now_s: float) -> None:
        """It was let into its lane."""
        self._arrivals[request.priority].came(request.slots, now_s=now_s)

    def measure(self, *, now_s: float) -> None:
        """Call with every decision, after it."""
        in_use = self._fleet.slots_in_use(is_wanted=self._live.lanes.waiting > 0)
        self._turnover.advance(now_s=now_s, slots=in_use)
        ended = self._live.ended_slots
        self._turnover.ended(ended - self._ended_slots)
        self._ended_slots = ended

    def of_newcomer(self, priority: str, *, now_s: float) -> Wait | None:
        """None while unknown."""
        crowd = self._crowd(priority, now_s)
        free = self._usable_slots()
        if crowd.urgent + crowd.own + 1 <= free:
            return Wait(0.0, 0.0)
        rate = self._turnover.per_slot_s
        if rate is None:
            return None
        slots_per_s = rate * self._fleet.capacity
        floor_share = self._live.policy.limits.floor_share
        left = crowd.less(free)
        whole_s = wait_s(left, slots_per_s=slots_per_s, floor_share=floor_share)
        # A request's wait grows with the slots of the last before it, whatever its own.
        waiting = len(self._live.lanes[priority])
        last = crowd.own / waiting if waiting else 1.0
        without = Crowd(left.urgent, left.own - last, left.urgent_per_s, left.lanes_below)
        before_s = wait_s(without, slots_per_s=slots_per_s, floor_share=floor_share)
        if whole_s is None or before_s is None:
            return None
        return Wait(whole_s, whole_s - before_s)

    def retry_after_full_s(self, priority: str, *, excess: int, now_s: float) -> float:
        """Until `excess` places of a full lane have become free."""
        wait = self.of_newcomer(priority, now_s=now_s)
        return UNKNOWN_WAIT_S if wait is None else excess * wait.place_s

    def retry_after_s(self, priority: str, *, patience_s: float, now_s: float) -> float:
        """Until a request of this patience would be served within it."""
        wait = self.of_newcomer(priority, now_s=now_s)
        if wait is None:
            return UNKNOWN_WAIT_S
        return max(wait.wait_s - patience_s, wait.place_s)

    def _crowd(self, priority: str, now_s: float) -> Crowd:
        lanes, outlines = self._live.lanes, self._live.outlines
        place = PRIORITIES.index(priority)
        above, below = PRIORITIES[:place], PRIORITIES[place + 1 :]
        return Crowd(
            urgent=sum(outlines[p].slots for p in above),
            own=outlines[priority].slots,
            urgent_per_s=sum(self._arrivals[p].per_s(now_s) for p in above),
            lanes_below=sum(len(lanes[p]) > 0 for p in below),
        )

    def _usable_slots(self) -> int:
        """Free ones, unless somebody waits beside them: then they are of no use to him.

        A worker that is being dispatched to is not beside anybody: its answer is on its way,
        and then it takes who waits.
        """
        is_blocked = self._live.lanes.waiting > 0 and self._fleet.has_able
        return 0 if is_blocked else self._fleet.free_slots()

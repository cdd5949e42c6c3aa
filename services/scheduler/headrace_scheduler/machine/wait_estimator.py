"""How long the requests of a model wait: told to gateways, to refused callers, to dashboards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from headrace.bus.subjects import PRIORITIES
from headrace.internal.v1.reports_pb2 import Settlement
from headrace_scheduler.machine.preemption import Preemption
from headrace_scheduler.request.live_request import PROBES, Request
from headrace_scheduler.state.estimates import (
    MIN_ENDS,
    Arrivals,
    CompetingTenant,
    QueueAhead,
    ServiceRate,
    estimate_wait_s,
)
from headrace_scheduler.state.lengths import FIRST_EXPECTED, EndedChoice, Lengths
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.state.supply import Run, Supply, sample_runs
from headrace_scheduler.state.tenant_shares import QueueMark, TenantShare
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.preemption_candidates import HIGHEST_PRIORITY

RATE_HALF_LIFE_S = 15.0
UNKNOWN_WAIT_S = 1.0
"""Said to a refused caller where nothing is known."""
REPORTED_TENANTS = 16
"""Of a lane, those of which most wait. Reports go to every gateway several times a second, so
their size is bound whatever waits; and so is how many of those that wait are marked in them."""
MARKS = 64
FEWEST_MARKS = 4
REMEMBERED = 256
"""Tenants of a lane whose arrivals are counted, those that came last."""
SUPPLY_KEPT_S = 0.05
"""What is to become free is reckoned no more often: it takes a millisecond or two, and refused
callers may ask a thousand times a second."""
FIRST_SEEN_S = 5.0
"""A tenant's arrivals are taken to be of so long at least: the first says nothing of a rate."""


@dataclass(frozen=True, slots=True)
class WaitEstimate:
    """Of a request that comes now."""

    wait_s: float
    place_s: float
    """Of it, what the last request before it adds: how often a place becomes free."""


@dataclass(frozen=True, slots=True)
class TenantWaitEstimate:
    """Of a tenant in one lane."""

    tenant: str
    """Empty: of any that is not told of by name."""
    waiting: int
    wait: WaitEstimate | None
    """Of a request of it that comes now; None while unknown."""
    marks: Sequence[QueueMark] = ()
    """Of those of it that wait."""


class _LaneArrivals:
    """Slots asked for in one lane, by all and by each of its tenants."""

    def __init__(self, half_life_s: float, now_s: float) -> None:
        self._half_life_s = half_life_s
        # Longer: what a lane below gets is what these leave of the service, a small difference.
        self.all = Arrivals(half_life_s=4 * half_life_s, now_s=now_s)
        self._tenants: OrderedDict[str, Arrivals] = OrderedDict()

    def on_arrival(self, request: Request, now_s: float) -> None:
        self.all.on_arrival(request.slots, now_s=now_s)
        if (of_tenant := self._tenants.get(request.tenant)) is None:
            of_tenant = Arrivals(half_life_s=self._half_life_s, now_s=now_s - FIRST_SEEN_S)
            self._tenants[request.tenant] = of_tenant
            if len(self._tenants) > REMEMBERED:
                self._tenants.popitem(last=False)
        self._tenants.move_to_end(request.tenant)
        of_tenant.on_arrival(request.slots, now_s=now_s)

    def per_s(self, now_s: float) -> dict[str, float]:
        return {tenant: each.per_s(now_s) for tenant, each in self._tenants.items()}


class WaitEstimator:
    """Measures with every decision, and estimates when asked."""

    def __init__(
        self, live: LiveRequests, fleet: Fleet, preemption: Preemption, *, now_s: float
    ) -> None:
        self._live, self._fleet, self._preemption = live, fleet, preemption
        half_life_s = RATE_HALF_LIFE_S
        self._service_rate = ServiceRate(half_life_s=half_life_s, now_s=now_s)
        self._arrivals = {priority: _LaneArrivals(half_life_s, now_s) for priority in PRIORITIES}
        self._in_use, self._ended_slots = 0, live.ended_slots
        self._lengths = Lengths()
        self._supply: tuple[float, tuple[Supply, float] | None] | None = None
        """What `_supply_at` found last, and when."""

    def on_arrival(self, request: Request, *, now_s: float) -> None:
        """It was let into its lane."""
        self._arrivals[request.lane].on_arrival(request, now_s)

    def ended(self, request: Request, settlement: Settlement, *, now_s: float) -> None:
        """It made so many tokens; call before it leaves."""
        tokens = settlement.output_tokens / request.choices
        ran_s = now_s - request.dispatched_s
        if request.is_probe or not tokens or not isfinite(ran_s):
            return
        is_whole = settlement.code == 0 and tokens < _most(request)
        made = tokens - request.output_tokens / request.choices
        self._lengths.ended(EndedChoice(tokens, is_whole, ran_s, made, now_s))

    def measure(self, *, now_s: float) -> None:
        """Call with every decision, after it. Where nothing has changed, nothing is reckoned."""
        in_use = self._slots_in_use()
        ended = self._live.ended_slots - self._ended_slots
        if ended or in_use != self._in_use:
            self._service_rate.advance(now_s=now_s, slots=in_use)
            self._service_rate.ended(ended)
            self._in_use, self._ended_slots = in_use, self._live.ended_slots

    def _slots_in_use(self) -> int:
        """By callers' requests, and those that could be where such wait.

        Why nothing where none is there: between the end of a probe and the report that shows its
        slot free, an idle mesh would seem slow, and it is probed for days.
        """
        running, is_wanted = self._live.running, self._live.lanes.has_waiting
        if not is_wanted and not any(running[priority] for priority in PRIORITIES):
            return 0
        return max(0, self._fleet.slots_in_use(is_wanted=is_wanted) - running[PROBES])

    # Asked

    def of_lane(self, priority: str, *, now_s: float) -> WaitEstimate | None:
        """Behind all that wait in it now, whose ever they are; None while unknown."""
        lane = self._live.lanes[priority]
        # A request's wait grows with the slots of the last before it, whatever its own.
        last = lane.slots / len(lane) if len(lane) else 1.0
        return _wait(
            self._wait_s(priority, lane.slots, (), now_s),
            self._wait_s(priority, lane.slots - last, (), now_s),
        )

    def of_tenants(self, priority: str, *, now_s: float) -> list[TenantWaitEstimate]:
        """Of those that have most waiting; and of any other, unless some of those wait too."""
        lane = self._live.lanes[priority]
        known = lane.tenant_shares()
        told = sorted(known, key=lambda s: (-s.waiting, -s.counter))[:REPORTED_TENANTS]
        marks = max(FEWEST_MARKS, MARKS // max(1, sum(s.waiting > 0 for s in told)))
        found = [
            TenantWaitEstimate(
                own.tenant,
                own.waiting,
                self._of_tenant(priority, own, known, now_s),
                lane.marks(known, own, marks),
            )
            for own in told
        ]
        if len(told) == len(known):
            anybody = lane.newcomer_share("")
            found.append(
                TenantWaitEstimate("", 0, self._of_tenant(priority, anybody, known, now_s))
            )
        return found

    def retry_after_full_s(self, priority: str, *, excess: int, now_s: float) -> float:
        """Until `excess` places of a full lane have become free."""
        wait = self.of_lane(priority, now_s=now_s)
        return UNKNOWN_WAIT_S if wait is None else excess * wait.place_s

    def retry_after_s(self, request: Request, *, patience_s: float, now_s: float) -> float:
        """Until one like it, of this patience, would be served within it."""
        lane = self._live.lanes[request.priority]
        known = lane.tenant_shares()
        named = (s for s in known if s.tenant == request.tenant)
        own = next(named, None) or lane.newcomer_share(request.tenant)
        wait = self._of_tenant(request.priority, own, known, now_s)
        if wait is None:
            return UNKNOWN_WAIT_S
        return max(wait.wait_s - patience_s, wait.place_s)

    # Reckoned

    def _of_tenant(
        self, priority: str, own: TenantShare, known: Sequence[TenantShare], now_s: float
    ) -> WaitEstimate | None:
        coming = self._arrivals[priority].per_s(now_s)
        names = {s.tenant for s in known}
        lane = self._live.lanes[priority]
        others = [s for s in known if s.tenant != own.tenant]
        others += (lane.newcomer_share(t) for t in coming if t not in names and t != own.tenant)

        def wait_at(place: int) -> float | None:
            competitors = _competitors(others, own.counter_after(place), coming)
            return self._wait_s(priority, place * own.slots_each, competitors, now_s)

        if not own.waiting:
            every = self.of_lane(priority, now_s=now_s)
            whole_s = wait_at(0)
            return (
                None if whole_s is None or every is None else WaitEstimate(whole_s, every.place_s)
            )
        return _wait(wait_at(own.waiting), wait_at(own.waiting - 1))

    def _wait_s(
        self, priority: str, own_slots: float, competitors: Sequence[CompetingTenant], now_s: float
    ) -> float | None:
        queue_ahead = self._queue_ahead(priority, own_slots, competitors, now_s)
        if queue_ahead.finds_room:
            return 0.0
        if priority == HIGHEST_PRIORITY:
            queue_ahead = replace(queue_ahead, free=queue_ahead.free + self._preemptible_slots)
            if queue_ahead.finds_room:
                return self._preemption.park_latency_s
        self._service_rate.advance(now_s=now_s, slots=self._in_use)
        found = self._supply_at(now_s)
        rate = self._service_rate.per_slot_s if found is None else 1.0 / (found[0].turn * found[1])
        if rate is None:
            return None
        even_s = estimate_wait_s(
            queue_ahead,
            slots_per_s=rate * self._fleet.capacity,
            floor_share=self._live.settings.floor_share,
        )
        if found is None or even_s is None:
            return even_s
        supply, token_s = found
        # At an even rate so many slots have become free by then; these come when they come.
        return token_s * supply.tokens_until(even_s * rate * supply.slots)

    def _supply_at(self, now_s: float) -> tuple[Supply, float] | None:
        """The ends to come, and how long a token takes; None where nothing is known of tokens."""
        if self._supply is None or now_s - self._supply[0] >= SUPPLY_KEPT_S:
            self._supply = now_s, self._reckon_supply(now_s)
        return self._supply[1]

    def _reckon_supply(self, now_s: float) -> tuple[Supply, float] | None:
        token_s, before_s = self._lengths.seconds(self._fleet.token_s)
        if not token_s:
            return None
        before = before_s / token_s
        runs = [_run(r, token_s, before, now_s) for r in self._live.all_running() if _most(r)]
        if not runs or (
            len(self._lengths) < MIN_ENDS and max(r.most for r in runs) > FIRST_EXPECTED
        ):
            return None  # Nothing runs, or nothing is known of how long that is.
        made = (run.made for run in runs)
        lengths = self._lengths.survival(made, token_s=token_s, now_s=now_s)
        return Supply(sample_runs(runs), lengths, before), token_s

    def _queue_ahead(
        self, priority: str, own_slots: float, competitors: Sequence[CompetingTenant], now_s: float
    ) -> QueueAhead:
        lanes, place = self._live.lanes, PRIORITIES.index(priority)
        above, below = PRIORITIES[:place], PRIORITIES[place + 1 :]
        urgent = sum(lanes[p].slots for p in above)
        if above and below:
            # Bulk requests make way for these, and wait again: before bulk newcomers only.
            urgent -= min(lanes[HIGHEST_PRIORITY].slots, self._preemptible_slots)
        return QueueAhead(
            urgent=urgent,
            own=own_slots,
            urgent_per_s=sum(self._arrivals[p].all.per_s(now_s) for p in above),
            lanes_below=sum(len(lanes[p]) > 0 for p in below),
            competitors=tuple(competitors),
            free=self._usable_slots(),
        )

    @property
    def _preemptible_slots(self) -> int:
        return self._preemption.preemptible_slots if self._live.settings.preemption else 0

    def _usable_slots(self) -> int:
        """Free ones, unless somebody waits beside them: then they are of no use to him.

        A worker that is being dispatched to is not beside anybody: its answer is on its way,
        and then it takes who waits.
        """
        is_blocked = self._live.lanes.has_waiting and self._fleet.has_room
        return 0 if is_blocked else self._fleet.free_slots()


def _most(request: Request) -> float:
    """Output tokens of each of its choices."""
    return request.max_output_tokens / request.choices


def _run(request: Request, token_s: float, before: float, now_s: float) -> Run:
    had = request.output_tokens / request.choices
    made = had - before + (now_s - request.dispatched_s) / token_s
    # One that runs has a token to make, at least.
    return Run(min(made, _most(request) - 1.0), _most(request), request.slots)


def _wait(whole_s: float | None, before_s: float | None) -> WaitEstimate | None:
    if whole_s is None or before_s is None:
        return None
    return WaitEstimate(whole_s, max(0.0, whole_s - before_s))


def _competitors(
    others: Sequence[TenantShare], counter_after: float, coming: Mapping[str, float]
) -> list[CompetingTenant]:
    """Those with one request waiting at most are counted as one, for there may be hundreds: they
    are served as they come."""
    competitors, due, waiting, per_s = [], 0.0, 0.0, 0.0
    for other in others:
        turns = other.requests_up_to(counter_after) * other.slots_each
        asks_per_s = coming.get(other.tenant, 0.0)
        if other.waiting > 1:
            competitors.append(CompetingTenant(turns, other.slots, asks_per_s))
        elif turns:
            due, waiting, per_s = due + turns, waiting + other.slots, per_s + asks_per_s
    return [*competitors, CompetingTenant(due, waiting, per_s)] if due else competitors

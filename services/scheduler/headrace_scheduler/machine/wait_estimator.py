"""How long the requests of a model wait: for gateways, for refused callers, for metrics.

`state.estimates` estimates from rates, `state.supply` when slots become free; this module
measures what both need.
"""

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
from headrace_scheduler.state.supply import RunningRequest, SlotSupply, sample_runs
from headrace_scheduler.state.tenant_shares import QueueMark, TenantShare
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.preemption_candidates import LOWEST_PRIORITY

RATE_HALF_LIFE_S = 15.0
LANE_HALF_LIFE_S = 4 * RATE_HALF_LIFE_S
"""Of a whole lane's arrivals. Longer, because a lane below gets what these leave of the service,
which may be a small difference."""
UNKNOWN_WAIT_S = 1.0
"""What a refused caller gets as retry time where nothing is known."""
REPORTED_TENANTS = 16
"""Tenants of a lane in a report, those with most waiting. Reports go to every gateway several
times a second, so their size is bounded whatever waits; and so is how many requests are marked."""
MARKS = 64
FEWEST_MARKS = 4
REMEMBERED = 256
"""Tenants of a lane whose arrivals are counted, those that came last."""
SUPPLY_KEPT_S = 0.05
"""Shortest time between two computations of the supply: one takes a millisecond or two, and
refused callers may need it a thousand times a second."""
FIRST_SEEN_S = 5.0
"""Least time that a tenant's arrivals count as: the first says nothing of a rate."""


@dataclass(frozen=True, slots=True)
class WaitEstimate:
    """The wait of a request that arrives now."""

    wait_s: float
    place_s: float
    """Part of it that the last request ahead adds: the time in which one place becomes free."""


@dataclass(frozen=True, slots=True)
class TenantWaitEstimate:
    """The wait of one tenant's requests in one lane."""

    tenant: str
    """Empty for any tenant that is not reported by name."""
    waiting: int
    wait: WaitEstimate | None
    """Of its request that arrives now; None while unknown."""
    marks: Sequence[QueueMark] = ()
    """Positions of its waiting requests."""


class _LaneArrivals:
    """Slots requested in one lane, by all tenants and by each."""

    def __init__(self, now_s: float) -> None:
        self.all = Arrivals(half_life_s=LANE_HALF_LIFE_S, now_s=now_s)
        self._tenants: OrderedDict[str, Arrivals] = OrderedDict()

    def add(self, request: Request, now_s: float) -> None:
        self.all.add(request.slots, now_s=now_s)
        if (of_tenant := self._tenants.get(request.tenant)) is None:
            of_tenant = Arrivals(half_life_s=RATE_HALF_LIFE_S, now_s=now_s - FIRST_SEEN_S)
            self._tenants[request.tenant] = of_tenant
            if len(self._tenants) > REMEMBERED:
                self._tenants.popitem(last=False)
        self._tenants.move_to_end(request.tenant)
        of_tenant.add(request.slots, now_s=now_s)

    def per_s(self, now_s: float) -> dict[str, float]:
        return {tenant: each.per_s(now_s) for tenant, each in self._tenants.items()}


class WaitEstimator:
    """Measures with every decision, and estimates on request."""

    def __init__(
        self, live: LiveRequests, fleet: Fleet, preemption: Preemption, *, now_s: float
    ) -> None:
        self._live, self._fleet, self._preemption = live, fleet, preemption
        self._service_rate = ServiceRate(half_life_s=RATE_HALF_LIFE_S, now_s=now_s)
        self._arrivals = {priority: _LaneArrivals(now_s) for priority in PRIORITIES}
        self._in_use, self._ended_slots = 0, live.ended_slots
        self._lengths = Lengths()
        self._supply: tuple[SlotSupply, float] | None = None
        """The last supply and its seconds per token; None where nothing is known of tokens."""
        self._supply_at_s = float("-inf")

    def on_arrival(self, request: Request, *, now_s: float) -> None:
        """Count a request that enters its lane."""
        self._arrivals[request.lane].add(request, now_s)

    def on_settled(self, request: Request, settlement: Settlement, *, now_s: float) -> None:
        """Count the tokens of a request that has ended; call before it leaves."""
        tokens = settlement.output_tokens / request.choices
        ran_s = now_s - request.dispatched_s
        if request.is_probe or not tokens or not isfinite(ran_s):
            return
        is_whole = settlement.code == 0 and tokens < _most(request)
        made = tokens - request.output_tokens / request.choices
        self._lengths.add(EndedChoice(tokens, is_whole, ran_s, made, now_s))

    def measure(self, *, now_s: float) -> None:
        """Measure the service rate. Call with every decision, after it."""
        in_use = self._slots_in_use()
        ended = self._live.ended_slots - self._ended_slots
        if ended or in_use != self._in_use:
            self._service_rate.advance(now_s=now_s, slots=in_use)
            self._service_rate.add_ends(ended)
            self._in_use, self._ended_slots = in_use, self._live.ended_slots

    def _slots_in_use(self) -> int:
        """Return the slots of callers' requests; if such wait, also those that they could take.

        Why 0 where there are none: between the end of a probe and the report that shows its slot
        free, an idle mesh would seem slow, and it is probed for days.
        """
        running, is_wanted = self._live.running, self._live.lanes.has_waiting
        if not is_wanted and not any(running[priority] for priority in PRIORITIES):
            return 0
        return max(0, self._fleet.slots_in_use(is_wanted=is_wanted) - running[PROBES])

    # Estimates

    def of_lane(self, priority: str, *, now_s: float) -> WaitEstimate | None:
        """Return the wait behind all that wait in a lane, of any tenant; None while unknown."""
        lane = self._live.lanes[priority]
        # Why the mean: a request waits for the slots of the last one ahead, not for its own.
        last = lane.slots / len(lane) if len(lane) else 1.0
        return _estimate(
            self._wait_s(priority, lane.slots, (), now_s),
            self._wait_s(priority, lane.slots - last, (), now_s),
        )

    def of_tenants(self, priority: str, *, now_s: float) -> list[TenantWaitEstimate]:
        """Return estimates for the tenants with most waiting; one for any other tenant is added
        if none of those with waiting requests is left out."""
        lane = self._live.lanes[priority]
        known = lane.tenant_shares()
        reported = sorted(known, key=lambda s: (-s.waiting, -s.counter))[:REPORTED_TENANTS]
        marks = max(FEWEST_MARKS, MARKS // max(1, sum(s.waiting > 0 for s in reported)))
        found = [
            TenantWaitEstimate(
                own.tenant,
                own.waiting,
                self._of_tenant(priority, own, known, now_s),
                lane.marks(known, own, marks),
            )
            for own in reported
        ]
        if len(reported) == len(known):
            newcomer = lane.newcomer_share("")
            wait = self._of_tenant(priority, newcomer, known, now_s)
            found.append(TenantWaitEstimate("", 0, wait))
        return found

    def retry_after_full_s(self, priority: str, *, excess: int, now_s: float) -> float:
        """Return the seconds until `excess` places of a full lane have become free."""
        wait = self.of_lane(priority, now_s=now_s)
        return UNKNOWN_WAIT_S if wait is None else excess * wait.place_s

    def retry_after_s(self, request: Request, *, patience_s: float, now_s: float) -> float:
        """Return the seconds until a request like this one would start within its patience."""
        lane = self._live.lanes[request.priority]
        known = lane.tenant_shares()
        named = (s for s in known if s.tenant == request.tenant)
        own = next(named, None) or lane.newcomer_share(request.tenant)
        wait = self._of_tenant(request.priority, own, known, now_s)
        if wait is None:
            return UNKNOWN_WAIT_S
        return max(wait.wait_s - patience_s, wait.place_s)

    # Parts

    def _of_tenant(
        self, priority: str, own: TenantShare, known: Sequence[TenantShare], now_s: float
    ) -> WaitEstimate | None:
        arriving = self._arrivals[priority].per_s(now_s)
        names = {s.tenant for s in known}
        lane = self._live.lanes[priority]
        others = [s for s in known if s.tenant != own.tenant]
        others += (lane.newcomer_share(t) for t in arriving if t not in names and t != own.tenant)

        def wait_at(place: int) -> float | None:
            competitors = _competitors(others, own.counter_after(place), arriving)
            return self._wait_s(priority, place * own.slots_each, competitors, now_s)

        if not own.waiting:
            lane_wait = self.of_lane(priority, now_s=now_s)
            wait_s = wait_at(0)
            if wait_s is None or lane_wait is None:
                return None
            return WaitEstimate(wait_s, lane_wait.place_s)
        return _estimate(wait_at(own.waiting), wait_at(own.waiting - 1))

    def _wait_s(
        self,
        priority: str,
        own_slots: float,
        competitors: Sequence[CompetingTenant],
        now_s: float,
    ) -> float | None:
        queue = self._queue_ahead(priority, own_slots, competitors, now_s)
        if queue.finds_free_slot:
            return 0.0
        if priority != LOWEST_PRIORITY:
            queue = replace(queue, free=queue.free + self._preemption.preemptible_slots)
            if queue.finds_free_slot:
                return self._preemption.park_latency_s
        self._service_rate.advance(now_s=now_s, slots=self._in_use)
        found = self._supply_at(now_s)
        rate = self._service_rate.per_slot_s if found is None else 1.0 / (found[0].turn * found[1])
        if rate is None:
            return None
        even_s = estimate_wait_s(
            queue,
            slots_per_s=rate * self._fleet.capacity,
            floor_share=self._live.settings.floor_share,
        )
        if found is None or even_s is None:
            return even_s
        supply, token_s = found
        # By then this many slots would be free at an even rate; `supply` says when they are.
        return token_s * supply.tokens_until_free(even_s * rate * supply.slots)

    def _supply_at(self, now_s: float) -> tuple[SlotSupply, float] | None:
        if now_s - self._supply_at_s >= SUPPLY_KEPT_S:
            self._supply, self._supply_at_s = self._compute_supply(now_s), now_s
        return self._supply

    def _compute_supply(self, now_s: float) -> tuple[SlotSupply, float] | None:
        token_s, before_s = self._lengths.token_times_s(self._fleet.token_s)
        if not token_s:
            return None
        before = before_s / token_s
        runs = [_run(r, token_s, before, now_s) for r in self._live.all_running() if _most(r)]
        if not runs or (
            len(self._lengths) < MIN_ENDS and max(r.most for r in runs) > FIRST_EXPECTED
        ):
            return None  # Nothing runs, or nothing is known of how long that takes.
        made = (run.made for run in runs)
        lengths = self._lengths.survival(made, token_s=token_s, now_s=now_s)
        return SlotSupply(sample_runs(runs), lengths, before), token_s

    def _queue_ahead(
        self,
        priority: str,
        own_slots: float,
        competitors: Sequence[CompetingTenant],
        now_s: float,
    ) -> QueueAhead:
        lanes, place = self._live.lanes, PRIORITIES.index(priority)
        above, below = PRIORITIES[:place], PRIORITIES[place + 1 :]
        return QueueAhead(
            urgent=sum(lanes[p].slots for p in above),
            own=own_slots,
            urgent_per_s=sum(self._arrivals[p].all.per_s(now_s) for p in above),
            lanes_below=sum(len(lanes[p]) > 0 for p in below),
            competitors=tuple(competitors),
            free=self._usable_slots(),
        )

    def _usable_slots(self) -> int:
        """Return the free slots; 0 if requests wait although there are some, which cannot use them.

        While a worker is dispatched to, its free slots count: once it has answered, it gets
        the requests that wait.
        """
        is_blocked = self._live.lanes.has_waiting and self._fleet.has_room
        return 0 if is_blocked else self._fleet.free_slots()


def _most(request: Request) -> float:
    """Return the most output tokens of each of its choices."""
    return request.max_output_tokens / request.choices


def _run(request: Request, token_s: float, before: float, now_s: float) -> RunningRequest:
    had = request.output_tokens / request.choices
    made = had - before + (now_s - request.dispatched_s) / token_s
    # Why 1: a request that runs has at least one token to make.
    return RunningRequest(min(made, _most(request) - 1.0), _most(request), request.slots)


def _estimate(whole_s: float | None, before_s: float | None) -> WaitEstimate | None:
    if whole_s is None or before_s is None:
        return None
    return WaitEstimate(whole_s, max(0.0, whole_s - before_s))


def _competitors(
    others: Sequence[TenantShare], level: float, arriving: Mapping[str, float]
) -> list[CompetingTenant]:
    """Return the tenants that are due before one whose counter is `level`.

    Those with at most one waiting request count as one, because there may be hundreds.
    """
    competitors, due, waiting, per_s = [], 0.0, 0.0, 0.0
    for other in others:
        slots = other.requests_up_to(level) * other.slots_each
        arriving_per_s = arriving.get(other.tenant, 0.0)
        if other.waiting > 1:
            competitors.append(CompetingTenant(slots, other.slots, arriving_per_s))
        elif slots:
            due, waiting, per_s = due + slots, waiting + other.slots, per_s + arriving_per_s
    return [*competitors, CompetingTenant(due, waiting, per_s)] if due else competitors

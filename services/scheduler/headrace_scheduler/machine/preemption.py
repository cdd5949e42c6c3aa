"""Park running bulk requests so that more urgent ones get their slots.

A worker's expected capacity is what is free there plus what it was already requested to park.
Waiting requests are set against it first, interactive ones before standard ones; only for the rest
a bulk request is parked.
For example, worker w has 4 slots, all taken, of which the bulk requests b1 and b2 (the newer one)
hold one each, and three more urgent requests of one slot wait:

    pending parks      expected capacity of w      decision
    none               0 slots                     u1 does not fit: park b2 for it
    b2                 0 + 1 - 1 (u1) = 0          u2 does not fit: park b1 for it
    b2, b1             0 + 2 - 2 = 0               u3 does not fit: no candidate left, it waits
    b2, b1             0 + 2 slots, anew           next decision: u1 and u2 fit, nothing to park
    b1                 1 (free) + 1                w reports b2's slot free, and then gets u1
    none               2 - 1 (u1 dispatched) = 1   w reports b1's slot free, and then gets u2

So no more is parked than waits, however often it is decided. b1 and b2 go back to their lane and
start again after u2 and u1. A park that no report confirms is sent again after `REPEAT_S`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from headrace_scheduler.request.live_request import Request, Running
from headrace_scheduler.state.events import ParkOnWorker
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.preemption_candidates import PREEMPTING
from headrace_scheduler.workers.worker import Worker

MAX_EXAMINED = 64
"""Waiting requests of a lane, and for each running ones, that one decision examines; the next goes
on."""
MAX_WORKERS_TRIED = 8
"""Workers whose running requests one decision examines for one waiting request."""
SMOOTHING = 0.2
"""How far one park moves the average latency."""
REPEAT_S = 1.0
"""Time after which a worker that still runs what it should park is requested again."""


@dataclass(slots=True)
class PendingPark:
    """An attempt that a worker should park; its room counts as free until reports show it."""

    request: Request
    worker_id: str
    attempt: int
    slots: int
    cache_tokens: int
    first_requested_s: float
    requested_s: float = field(init=False)

    def still_occupies(self, worker: Worker | None) -> bool:
        """Return whether the worker's reported room does not yet include this attempt's."""
        if worker is None:
            return False
        request_id = self.request.request_id
        on_its_way = any(request_id in d for d in worker.unreported.values())
        return on_its_way or worker.running.get(request_id) == self.attempt


@dataclass(slots=True)
class _ExpectedCapacity:
    """The room of a worker once its pending parks are done."""

    worker: Worker
    slots: int
    cache_tokens: int

    def fits(self, request: Request) -> bool:
        runs_nothing = self.slots >= self.worker.total_slots
        return request.slots <= self.slots and (
            runs_nothing or request.cache_tokens <= self.cache_tokens
        )

    def can_park_for(self, request: Request) -> bool:
        """Return whether the worker can park, and could then run the request."""
        return self.worker.parks and self.worker.has_weights_for(request)

    def add(self, victim: Request | PendingPark) -> None:
        self.slots += victim.slots
        self.cache_tokens += victim.cache_tokens

    def reserve(self, request: Request) -> None:
        self.slots -= request.slots
        self.cache_tokens -= request.cache_tokens


class _ExpectedCapacities:
    """Those of all open workers, each computed when it is first used: there may be hundreds of
    workers, and this is needed with every event while an urgent request waits."""

    def __init__(self, fleet: Fleet, pending: Iterable[PendingPark]) -> None:
        self._fleet = fleet
        self._computed: dict[str, _ExpectedCapacity | None] = {}
        self._pending: dict[str, list[PendingPark]] = {}
        for each in pending:
            self._pending.setdefault(each.worker_id, []).append(each)

    def of(self, worker_id: str) -> _ExpectedCapacity | None:
        """Return that of a worker; None unless it is open."""
        if worker_id not in self._computed:
            self._computed[worker_id] = self._compute(worker_id)
        return self._computed[worker_id]

    def _compute(self, worker_id: str) -> _ExpectedCapacity | None:
        worker = self._fleet.get(worker_id)
        if worker is None or not worker.is_open:
            return None
        capacity = _ExpectedCapacity(worker, worker.free_slots, worker.free_cache_tokens)
        for pending in self._pending.get(worker_id, ()):
            capacity.add(pending)
        return capacity

    def with_slots(self) -> list[_ExpectedCapacity]:
        found = map(self.of, dict.fromkeys([*self._fleet.with_free_slots, *self._pending]))
        return [capacity for capacity in found if capacity is not None and capacity.slots > 0]


class Preemption:
    """Parks the newest bulk requests, no more than more urgent ones wait for.

    A victim is taken where its worker can park it, has the weights that the urgent request needs,
    and will have room for it.
    """

    def __init__(self, live: LiveRequests, fleet: Fleet) -> None:
        self._live, self._fleet = live, fleet
        self._pending: dict[str, PendingPark] = {}
        self.park_latency_s: float | None = None
        """Recent time from the request to park until a report showed the room; None while
        unknown."""

    @property
    def preemptible_slots(self) -> int:
        """Slots of the requests that may be parked or are about to be."""
        if not self._can_park:
            return 0
        return self._live.preemptible.slots + sum(p.slots for p in self._pending.values())

    @property
    def _can_park(self) -> bool:
        return self._fleet.parks and self._live.settings.preemption

    def plan(self, *, now_s: float) -> None:
        """Command what is to be parked now."""
        if self._pending:
            self._review(now_s)
        if not self._live.preemptible or not self._can_park:
            return
        if not self._urgent_wait:
            return
        capacities = _ExpectedCapacities(self._fleet, self._pending.values())
        with_slots = capacities.with_slots()
        impossible: set[tuple[str, str, int]] = set()
        for request in self._first_urgent():
            kind = request.weights_digest, request.adapter_digest, request.slots
            capacity = self._with_room(request, with_slots)
            if capacity is None and kind not in impossible:
                capacity = self._preempt_for(request, capacities, now_s)
            if capacity is not None:
                capacity.reserve(request)
            else:
                impossible.add(kind)

    @property
    def _urgent_wait(self) -> bool:
        return any(self._live.lanes[name] for name in PREEMPTING)

    def _first_urgent(self) -> Iterator[Request]:
        """Iterate over the first of each lane: others may be for weights that no worker has yet."""
        for name in PREEMPTING:
            yield from islice(self._live.lanes[name].in_order(lambda _: True), MAX_EXAMINED)

    def _review(self, now_s: float) -> None:
        for request_id, pending in list(self._pending.items()):
            if not pending.still_occupies(self._fleet.get(pending.worker_id)):
                del self._pending[request_id]
                took_s = now_s - pending.first_requested_s
                known_s = took_s if self.park_latency_s is None else self.park_latency_s
                self.park_latency_s = known_s + SMOOTHING * (took_s - known_s)
            elif self._runs(pending) and now_s - pending.requested_s >= REPEAT_S:
                if self._urgent_wait:
                    self._send(pending, now_s)
                else:  # No urgent request waits any more, and the command may be lost.
                    del self._pending[request_id]
                    self._live.preemptible.started(pending.request)

    def _runs(self, pending: PendingPark) -> bool:
        """Return whether the attempt is believed to run still."""
        request = self._live.get(pending.request.request_id)
        state = request.state if request is pending.request else None
        return isinstance(state, Running) and state.attempt == pending.attempt

    def _with_room(
        self, request: Request, capacities: Iterable[_ExpectedCapacity]
    ) -> _ExpectedCapacity | None:
        able = (c for c in capacities if c.fits(request) and c.worker.has_weights_for(request))
        return next(able, None)

    def _preempt_for(
        self, request: Request, capacities: _ExpectedCapacities, now_s: float
    ) -> _ExpectedCapacity | None:
        """Make room on the worker of the newest victim where that is possible; None if nowhere."""
        tried: set[str] = set()
        for candidate in islice(self._live.preemptible.newest_first(), MAX_EXAMINED):
            assert isinstance(candidate.state, Running)
            worker_id = candidate.state.worker_id
            capacity = capacities.of(worker_id)
            if capacity is None or worker_id in tried or not capacity.can_park_for(request):
                continue
            tried.add(worker_id)
            if len(tried) > MAX_WORKERS_TRIED:
                break
            if victims := self._victims(request, capacity):
                for victim in victims:
                    capacity.add(victim)
                    self._park(victim, capacity.worker, request, now_s)
                return capacity
        return None

    def _victims(self, request: Request, capacity: _ExpectedCapacity) -> list[Request]:
        """Return the newest that together make room; none if all of them do not."""
        draft = _ExpectedCapacity(capacity.worker, capacity.slots, capacity.cache_tokens)
        victims = []
        for victim in self._candidates_on(capacity.worker):
            if draft.fits(request):
                break
            draft.add(victim)
            victims.append(victim)
        return victims if draft.fits(request) else []

    def _candidates_on(self, worker: Worker) -> list[Request]:
        """Return the candidates that certainly run on a worker, the newest first."""
        running = self._live.on_worker(worker.worker_id).values()
        able = (r for r in running if r in self._live.preemptible and _surely_runs(r, worker))
        return sorted(able, key=lambda r: r.sequence, reverse=True)

    def _park(self, victim: Request, worker: Worker, urgent: Request, now_s: float) -> None:
        self._live.preemptible.remove(victim)
        victim.preemptions += 1
        victim.parked_for = urgent.request_id
        attempt, slots, cache_tokens = victim.record.attempt, victim.slots, victim.cache_tokens
        pending = PendingPark(victim, worker.worker_id, attempt, slots, cache_tokens, now_s)
        self._pending[victim.request_id] = pending
        self._send(pending, now_s)
        self._live.observer.happened("preempted", victim, f"{urgent.priority} requests wait")

    def _send(self, pending: PendingPark, now_s: float) -> None:
        pending.requested_s = now_s
        worker_id, request_id = pending.worker_id, pending.request.request_id
        self._live.command(ParkOnWorker(worker_id, request_id, pending.attempt))


def _surely_runs(request: Request, worker: Worker) -> bool:
    """Return whether the worker accepted it, and it has not ended."""
    state = request.state
    if not isinstance(state, Running) or state.vanished_s is not None:
        return False
    return worker.unanswered is None or state.dispatch[1] != worker.unanswered

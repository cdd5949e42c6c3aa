"""Slots for interactive requests that would wait: the newest bulk ones are parked for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from headrace_scheduler.request.live_request import Request, Running
from headrace_scheduler.state.events import ParkOnWorker
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.preemption_candidates import HIGHEST_PRIORITY
from headrace_scheduler.workers.worker import Worker

MAX_EXAMINED = 64
"""Waiting requests, and for each running ones, that one decision looks at; the next goes on."""
MAX_WORKERS_TRIED = 8
"""Workers whose running requests one decision looks through for one that waits."""
SMOOTHING = 0.2
"""How far one parking moves what is expected of the next."""
REPEAT_S = 1.0
"""After which a worker that still runs what it was to park is asked once more."""


@dataclass(slots=True)
class PendingPark:
    """A worker was asked to park this attempt; its room counts as free until reports show it."""

    request: Request
    worker_id: str
    attempt: int
    slots: int
    cache_tokens: int
    requested_s: float
    first_requested_s: float

    def still_occupies(self, worker: Worker | None) -> bool:
        """Whether the worker's room does not yet count what it was asked for."""
        if worker is None:
            return False
        request_id = self.request.request_id
        on_its_way = any(request_id in d for d in worker.unreported.values())
        return on_its_way or worker.running.get(request_id) == self.attempt


@dataclass(slots=True)
class _ExpectedCapacity:
    """Room of a worker as it will be: what is free, and what it was asked for."""

    worker: Worker
    slots: int
    cache_tokens: int

    def fits(self, request: Request) -> bool:
        runs_nothing = self.slots >= self.worker.total_slots
        return request.slots <= self.slots and (
            runs_nothing or request.cache_tokens <= self.cache_tokens
        )

    def can_park_for(self, request: Request) -> bool:
        """Whether the worker can, and could run the request then."""
        return self.worker.parks and self.worker.has_weights_for(request)

    def add(self, victim: Request | PendingPark) -> None:
        self.slots += victim.slots
        self.cache_tokens += victim.cache_tokens

    def reserve(self, request: Request) -> None:
        self.slots -= request.slots
        self.cache_tokens -= request.cache_tokens


class _ExpectedCapacities:
    """Of all open workers, each made when it is looked at: there may be hundreds of workers, and
    this is asked with every event while anybody urgent waits."""

    def __init__(self, fleet: Fleet, pending: Iterable[PendingPark]) -> None:
        self._fleet = fleet
        self._made: dict[str, _ExpectedCapacity | None] = {}
        self._pending: dict[str, list[PendingPark]] = {}
        for each in pending:
            self._pending.setdefault(each.worker_id, []).append(each)

    def of(self, worker_id: str) -> _ExpectedCapacity | None:
        """None unless the worker is open."""
        if worker_id not in self._made:
            self._made[worker_id] = self._make(worker_id)
        return self._made[worker_id]

    def _make(self, worker_id: str) -> _ExpectedCapacity | None:
        worker = self._fleet.get(worker_id)
        if worker is None or not worker.is_open:
            return None
        capacity = _ExpectedCapacity(worker, worker.free_slots, worker.free_cache_tokens)
        for pending in self._pending.get(worker_id, ()):
            capacity.add(pending)
        return capacity

    def roomy(self) -> list[_ExpectedCapacity]:
        """Those with any slots."""
        found = map(self.of, dict.fromkeys([*self._fleet.roomy, *self._pending]))
        return [capacity for capacity in found if capacity is not None and capacity.slots > 0]


class Preemption:
    """Asks for no more than waits: what is free, or asked for already, is set against it first.

    A victim is taken where its worker can park it, has the weights that the urgent
    one needs, and comes to have room for it. It goes back to its lane as any
    request that was parked, and starts again after the one it was parked for.
    """

    def __init__(self, live: LiveRequests, fleet: Fleet) -> None:
        self._live, self._fleet = live, fleet
        self._pending: dict[str, PendingPark] = {}
        self.park_latency_s: float | None = None
        """Lately, from the asking until a report showed the room; None while none has."""

    @property
    def preemptible_slots(self) -> int:
        """Held by requests that may be made to let go, or have been asked to."""
        if not self._fleet.parks:
            return 0
        return self._live.preemption_candidates.slots + sum(
            pending.slots for pending in self._pending.values()
        )

    def plan(self, *, now_s: float) -> None:
        """Command what is to be parked now."""
        if self._pending:
            self._review(now_s)
        if not self._live.preemption_candidates.candidates or not self._fleet.parks:
            return
        if not (waiting := self._live.lanes[HIGHEST_PRIORITY]):
            return
        capacities = _ExpectedCapacities(self._fleet, self._pending.values())
        roomy = capacities.roomy()
        impossible: set[tuple[str, str, int]] = set()
        for request in islice(waiting.in_order(_every), MAX_EXAMINED):
            want = request.weights_digest, request.adapter_digest, request.slots
            capacity = self._with_capacity(request, roomy)
            if capacity is None and want not in impossible:
                capacity = self._preempt_for(request, capacities, now_s)
            if capacity is not None:
                capacity.reserve(request)
            else:
                impossible.add(want)

    def _review(self, now_s: float) -> None:
        for request_id, pending in list(self._pending.items()):
            if not pending.still_occupies(self._fleet.get(pending.worker_id)):
                del self._pending[request_id]
                took_s = now_s - pending.first_requested_s
                known_s = took_s if self.park_latency_s is None else self.park_latency_s
                self.park_latency_s = known_s + SMOOTHING * (took_s - known_s)
            elif self._runs(pending) and now_s - pending.requested_s >= REPEAT_S:
                if self._live.lanes[HIGHEST_PRIORITY]:
                    self._send(pending, now_s)
                else:  # Whoever it was for is gone; so may the word be that it was asked by.
                    del self._pending[request_id]
                    self._live.preemption_candidates.started(pending.request)

    def _runs(self, pending: PendingPark) -> bool:
        """Whether the attempt is believed to run still."""
        request = self._live.get(pending.request.request_id)
        state = request.state if request is pending.request else None
        return isinstance(state, Running) and state.attempt == pending.attempt

    def _with_capacity(
        self, request: Request, capacities: Iterable[_ExpectedCapacity]
    ) -> _ExpectedCapacity | None:
        able = (s for s in capacities if s.fits(request) and s.worker.has_weights_for(request))
        return next(able, None)

    def _preempt_for(
        self, request: Request, capacities: _ExpectedCapacities, now_s: float
    ) -> _ExpectedCapacity | None:
        """On the worker of the newest victim where there is enough to take; None if nowhere."""
        tried: set[str] = set()
        for candidate in islice(self._live.preemption_candidates.newest_first(), MAX_EXAMINED):
            assert isinstance(candidate.state, Running)
            capacity = capacities.of(candidate.state.worker_id)
            if (
                capacity is None
                or capacity.worker.worker_id in tried
                or not capacity.can_park_for(request)
            ):
                continue
            tried.add(capacity.worker.worker_id)
            if len(tried) > MAX_WORKERS_TRIED:
                break
            if victims := self._victims(request, capacity):
                for victim in victims:
                    capacity.add(victim)
                    self._park(victim, capacity.worker, request, now_s)
                return capacity
        return None

    def _victims(self, request: Request, capacity: _ExpectedCapacity) -> list[Request]:
        """The newest there that together make room for it; none if all of them do not."""
        draft = _ExpectedCapacity(capacity.worker, capacity.slots, capacity.cache_tokens)
        victims = []
        for victim in self._candidates_on(capacity.worker):
            if draft.fits(request):
                break
            draft.add(victim)
            victims.append(victim)
        return victims if draft.fits(request) else []

    def _candidates_on(self, worker: Worker) -> list[Request]:
        """Those that it may be asked for, the newest first."""
        running = self._live.on_worker(worker.worker_id).values()
        able = (
            r
            for r in running
            if self._live.preemption_candidates.is_candidate(r) and _is_surely_running(r, worker)
        )
        return sorted(able, key=lambda r: r.sequence, reverse=True)

    def _park(self, victim: Request, worker: Worker, urgent: Request, now_s: float) -> None:
        self._live.preemption_candidates.take(victim)
        victim.preemptions += 1
        victim.parked_for = urgent.request_id
        pending = PendingPark(
            victim,
            worker.worker_id,
            victim.record.attempt,
            victim.slots,
            victim.cache_tokens,
            now_s,
            now_s,
        )
        self._pending[victim.request_id] = pending
        self._send(pending, now_s)
        self._live.observer.preempted(victim.priority, victim.request_id)

    def _send(self, pending: PendingPark, now_s: float) -> None:
        pending.requested_s = now_s
        self._live.command(
            ParkOnWorker(
                pending.worker_id, self._live.epoch, pending.request.request_id, pending.attempt
            )
        )

    @property
    def pending(self) -> int:
        """Victims whose room reports do not show yet."""
        return len(self._pending)


def _every(_: Request) -> bool:
    return True


def _is_surely_running(request: Request, worker: Worker) -> bool:
    """Whether the worker has it for certain: it was taken, and has not ended."""
    state = request.state
    if not isinstance(state, Running) or state.vanished_s is not None:
        return False
    return worker.unanswered is None or state.dispatch[1] != worker.unanswered

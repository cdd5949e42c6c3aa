"""Slots for interactive requests that would wait: the newest bulk ones are parked for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from headrace_scheduler.request.request import Request, Running
from headrace_scheduler.state.events import ParkOnWorker
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.preemption_candidates import HIGHEST_PRIORITY
from headrace_scheduler.workers.worker import Worker

LOOKED_AT = 64
"""Waiting requests, and for each running ones, that one decision looks at; the next goes on."""
TRIED = 8
"""Workers whose running requests one decision looks through for one that waits."""
GAIN = 0.2
"""How far one parking moves what is expected of the next."""
ASK_AGAIN_S = 1.0
"""After which a worker that still runs what it was to park is asked once more."""


@dataclass(slots=True)
class Asked:
    """A worker was asked to park this attempt; its room counts as free until reports show it."""

    request: Request
    worker_id: str
    attempt: int
    slots: int
    cache_tokens: int
    asked_s: float
    first_asked_s: float

    def is_held_by(self, worker: Worker | None) -> bool:
        """Whether the worker's room does not yet count what it was asked for."""
        if worker is None:
            return False
        request_id = self.request.request_id
        on_its_way = any(request_id in d for d in worker.unreported.values())
        return on_its_way or worker.running.get(request_id) == self.attempt


@dataclass(slots=True)
class _Supply:
    """Room of a worker as it will be: what is free, and what it was asked for."""

    worker: Worker
    slots: int
    cache_tokens: int

    def fits(self, request: Request) -> bool:
        runs_nothing = self.slots >= self.worker.total_slots
        return request.slots <= self.slots and (
            runs_nothing or request.cache_tokens <= self.cache_tokens
        )

    def may_park(self, request: Request) -> bool:
        """Whether the worker can, and could run the request then."""
        return self.worker.parks and self.worker.has_weights_for(request)

    def add(self, victim: Request | Asked) -> None:
        self.slots += victim.slots
        self.cache_tokens += victim.cache_tokens

    def give(self, request: Request) -> None:
        self.slots -= request.slots
        self.cache_tokens -= request.cache_tokens


class _Supplies:
    """Of all open workers, each made when it is looked at: there may be hundreds of workers, and
    this is asked with every event while anybody urgent waits."""

    def __init__(self, fleet: Fleet, asked: Iterable[Asked]) -> None:
        self._fleet = fleet
        self._made: dict[str, _Supply | None] = {}
        self._asked: dict[str, list[Asked]] = {}
        for each in asked:
            self._asked.setdefault(each.worker_id, []).append(each)

    def of(self, worker_id: str) -> _Supply | None:
        """None unless the worker is open."""
        if worker_id not in self._made:
            self._made[worker_id] = self._make(worker_id)
        return self._made[worker_id]

    def _make(self, worker_id: str) -> _Supply | None:
        worker = self._fleet.get(worker_id)
        if worker is None or not worker.is_open:
            return None
        supply = _Supply(worker, worker.free_slots, worker.free_cache_tokens)
        for asked in self._asked.get(worker_id, ()):
            supply.add(asked)
        return supply

    def roomy(self) -> list[_Supply]:
        """Those with any slots."""
        found = map(self.of, dict.fromkeys([*self._fleet.roomy, *self._asked]))
        return [supply for supply in found if supply is not None and supply.slots > 0]


class Preemption:
    """Asks for no more than waits: what is free, or asked for already, is set against it first.

    A victim is taken where its worker can park it, has the weights that the urgent
    one needs, and comes to have room for it. It goes back to its lane as any
    request that was parked, and starts again after the one it was parked for.
    """

    def __init__(self, live: LiveRequests, fleet: Fleet) -> None:
        self._live, self._fleet = live, fleet
        self._asked: dict[str, Asked] = {}
        self.park_latency_s: float | None = None
        """Lately, from the asking until a report showed the room; None while none has."""

    @property
    def preemptible_slots(self) -> int:
        """Held by requests that may be made to let go, or have been asked to."""
        if not self._fleet.parks:
            return 0
        return self._live.preemption_candidates.slots + sum(
            asked.slots for asked in self._asked.values()
        )

    def plan(self, *, now_s: float) -> None:
        """Command what is to be parked now."""
        if self._asked:
            self._review(now_s)
        if not self._live.preemption_candidates.candidates or not self._fleet.parks:
            return
        if not (waiting := self._live.lanes[HIGHEST_PRIORITY]):
            return
        supplies = _Supplies(self._fleet, self._asked.values())
        roomy = supplies.roomy()
        in_vain: set[tuple[str, str, int]] = set()
        for request in islice(waiting.in_turn(_anybody), LOOKED_AT):
            want = request.weights_digest, request.adapter_digest, request.slots
            supply = self._with_room(request, roomy)
            if supply is None and want not in in_vain:
                supply = self._make_room(request, supplies, now_s)
            if supply is not None:
                supply.give(request)
            else:
                in_vain.add(want)

    def _review(self, now_s: float) -> None:
        for request_id, asked in list(self._asked.items()):
            if not asked.is_held_by(self._fleet.get(asked.worker_id)):
                del self._asked[request_id]
                took_s = now_s - asked.first_asked_s
                known_s = took_s if self.park_latency_s is None else self.park_latency_s
                self.park_latency_s = known_s + GAIN * (took_s - known_s)
            elif self._runs(asked) and now_s - asked.asked_s >= ASK_AGAIN_S:
                if self._live.lanes[HIGHEST_PRIORITY]:
                    self._ask(asked, now_s)
                else:  # Whoever it was for is gone; so may the word be that it was asked by.
                    del self._asked[request_id]
                    self._live.preemption_candidates.started(asked.request)

    def _runs(self, asked: Asked) -> bool:
        """Whether the attempt is believed to run still."""
        request = self._live.get(asked.request.request_id)
        state = request.state if request is asked.request else None
        return isinstance(state, Running) and state.attempt == asked.attempt

    def _with_room(self, request: Request, supplies: Iterable[_Supply]) -> _Supply | None:
        able = (s for s in supplies if s.fits(request) and s.worker.has_weights_for(request))
        return next(able, None)

    def _make_room(self, request: Request, supplies: _Supplies, now_s: float) -> _Supply | None:
        """On the worker of the newest victim where there is enough to take; None if nowhere."""
        tried: set[str] = set()
        for candidate in islice(self._live.preemption_candidates.newest_first(), LOOKED_AT):
            assert isinstance(candidate.state, Running)
            supply = supplies.of(candidate.state.worker_id)
            if supply is None or supply.worker.worker_id in tried or not supply.may_park(request):
                continue
            tried.add(supply.worker.worker_id)
            if len(tried) > TRIED:
                break
            if victims := self._victims(request, supply):
                for victim in victims:
                    supply.add(victim)
                    self._park(victim, supply.worker, request, now_s)
                return supply
        return None

    def _victims(self, request: Request, supply: _Supply) -> list[Request]:
        """The newest there that together make room for it; none if all of them do not."""
        draft = _Supply(supply.worker, supply.slots, supply.cache_tokens)
        victims = []
        for victim in self._on(supply.worker):
            if draft.fits(request):
                break
            draft.add(victim)
            victims.append(victim)
        return victims if draft.fits(request) else []

    def _on(self, worker: Worker) -> list[Request]:
        """Those that it may be asked for, the newest first."""
        running = self._live.on_worker(worker.worker_id).values()
        able = (
            r
            for r in running
            if self._live.preemption_candidates.is_candidate(r) and _is_there(r, worker)
        )
        return sorted(able, key=lambda r: r.sequence, reverse=True)

    def _park(self, victim: Request, worker: Worker, urgent: Request, now_s: float) -> None:
        self._live.preemption_candidates.take(victim)
        victim.preemptions += 1
        victim.parked_for = urgent.request_id
        asked = Asked(
            victim,
            worker.worker_id,
            victim.record.attempt,
            victim.slots,
            victim.cache_tokens,
            now_s,
            now_s,
        )
        self._asked[victim.request_id] = asked
        self._ask(asked, now_s)
        self._live.observer.preempted(victim.priority, victim.request_id)

    def _ask(self, asked: Asked, now_s: float) -> None:
        asked.asked_s = now_s
        self._live.command(
            ParkOnWorker(asked.worker_id, self._live.epoch, asked.request.request_id, asked.attempt)
        )

    @property
    def asked(self) -> int:
        """Victims whose room reports do not show yet."""
        return len(self._asked)


def _anybody(_: Request) -> bool:
    return True


def _is_there(request: Request, worker: Worker) -> bool:
    """Whether the worker has it for certain: it was taken, and has not ended."""
    state = request.state
    if not isinstance(state, Running) or state.vanished_s is not None:
        return False
    return worker.unanswered is None or state.dispatch[1] != worker.unanswered

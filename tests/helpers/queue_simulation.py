"""The scheduler's machine under a load, in simulated time: estimated and true waits."""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from headrace.bus.subjects import PRIORITIES
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership, Machine
from headrace_scheduler.state.events import (
    Dispatch,
    DispatchAnswered,
    Event,
    ParkOnWorker,
    SendNotice,
    WeightsChanged,
)
from helpers.counting_observer import CountingObserver
from helpers.scheduler_events import (
    MODEL,
    answer,
    caught_up,
    gateway_reported,
    parked,
    point,
    reported,
    settled,
    submitted,
)

BEAT_S = 0.5
PARKS_IN_S = 0.03
"""What a worker takes to park a request."""


@dataclass(frozen=True)
class Arrival:
    """One request of a load."""

    at_s: float
    runs_s: float
    n: int = 1
    priority: str = "standard"
    tenant: str = "default"
    most_s: float = 0.0
    """By its `max_tokens`; unset: it has no bound that matters."""
    probe: bool = False


@dataclass
class OfferedRequest:
    arrival: Arrival
    ahead: int
    estimated_s: float | None
    """None: there was no estimate."""
    waited_s: float | None = None
    """None: it was never dispatched."""
    left_s: float = 0.0
    """Still to be run, when it last started or was parked."""
    started_s: float = 0.0


@dataclass
class _Worker:
    slots: int
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Attempt and slots, by request."""
    number: int = 0
    counted: tuple[int, int] = (0, 0)


class Simulation:
    """Workers answer at once, report every end, and run each request for its `runs_s`.

    Args:
        token_s: how long a token takes; 0: nothing is known of tokens.
        reports_tokens: workers report it.
    """

    def __init__(
        self,
        workers: Iterable[int],
        settings: SchedulerSettings | None = None,
        *,
        token_s: float = 0.0,
        reports_tokens: bool = False,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.now_s = 0.0
        self._token_s, self._reported_token_s = token_s, token_s if reports_tokens else 0.0
        leadership = Leadership("s", MODEL, 1, 0.0, listening_since_s=-10.0)
        quiet = settings or SchedulerSettings(max_waiting=100_000)
        self.machine = Machine(leadership, quiet, CountingObserver())
        self.offered: dict[str, OfferedRequest] = {}
        self._offered, self._open = 0, set[str]()
        self._workers: dict[str, _Worker] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = iter(range(1_000_000_000))
        self._apply(*caught_up(), WeightsChanged(weights or {}))
        for i, slots in enumerate(workers):
            self.join(f"w{i}", slots)

    def join(self, worker_id: str, slots: int) -> None:
        self._workers[worker_id] = _Worker(slots)
        self._beat(worker_id)

    def leave(self, worker_id: str) -> None:
        """It ends with what it runs; nothing of it is judged."""
        worker = self._workers.pop(worker_id)
        worker.number += 1
        self._apply(reported(worker_id, worker.number, received_s=self.now_s, leaving=True))

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when_s, next(self._ids), act))

    def offer(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            self._offered += 1
            self.at(arrival.at_s, lambda arrival=arrival: self._submit(arrival))  # type: ignore[misc]

    def run(self, until_s: float = float("inf")) -> None:
        """Until then, or until all that came has ended."""
        while self._agenda and self._agenda[0][0] <= until_s and self._lives:
            self.now_s, _, act = heapq.heappop(self._agenda)
            act()

    @property
    def _lives(self) -> bool:
        return len(self.offered) < self._offered or bool(self._open)

    def _submit(self, arrival: Arrival) -> None:
        sequence = next(self._ids)
        request_id = f"r{sequence}"
        lanes = {f.priority: f for f in self.machine.lanes(now_s=self.now_s)}
        ahead = sum(lanes[p].waiting for p in PRIORITIES[: PRIORITIES.index(arrival.priority) + 1])
        estimates = {o.tenant: o for o in lanes[arrival.priority].tenants}
        estimate = estimates.get(arrival.tenant) or estimates.get("")
        wait = estimate.wait if estimate else None
        estimated_s = None if wait is None else wait.wait_s
        self.offered[request_id] = OfferedRequest(
            arrival, ahead, estimated_s, left_s=arrival.runs_s
        )
        self._open.add(request_id)
        self._apply(
            submitted(
                request_id,
                sequence,
                now_s=self.now_s,
                n=arrival.n,
                priority=arrival.priority,
                tenant=arrival.tenant,
                max_tokens=self._most_tokens(arrival),
                probe=arrival.probe,
            )
        )

    def _most_tokens(self, arrival: Arrival) -> int:
        if not self._token_s:
            return 4
        return self._tokens(arrival.most_s) if arrival.most_s else 2_000

    def _tokens(self, runs_s: float) -> int:
        return max(1, round(runs_s / self._token_s)) if self._token_s else 0

    def _apply(self, *events: Event) -> None:
        for event in events:
            self.machine.apply(event, now_s=self.now_s)
        for command in self.machine.decide(now_s=self.now_s):
            match command:
                case Dispatch():
                    self._take(command)
                case ParkOnWorker():
                    self.at(self.now_s + PARKS_IN_S, partial(self._park, command))
                case SendNotice():
                    points = [point(i, attempt) for i, attempt in command.fences]
                    self._apply(answer(command, *points))

    def _take(self, dispatch: Dispatch) -> None:
        worker = self._workers[dispatch.worker_id]
        for record in dispatch.message.requests:
            offered = self.offered[record.request_id]
            if offered.waited_s is None:
                offered.waited_s = self.now_s - offered.arrival.at_s
            offered.started_s = self.now_s
            worker.running[record.request_id] = record.attempt, record.n
            end = self._end_of(dispatch.worker_id, record.request_id, record.attempt)
            self.at(self.now_s + offered.left_s, end)
        worker.counted = dispatch.message.epoch, dispatch.number
        self._apply(DispatchAnswered(dispatch.worker_id, dispatch.number, ()))

    def _park(self, offered: ParkOnWorker) -> None:
        worker = self._workers[offered.worker_id]
        if worker.running.pop(offered.request_id, None) is not None:
            parked_one = self.offered[offered.request_id]
            parked_one.left_s -= self.now_s - parked_one.started_s
            self._apply(parked(offered.worker_id, point(offered.request_id, offered.attempt)))
            self._report(offered.worker_id)

    def _end_of(self, worker_id: str, request_id: str, attempt: int) -> Callable[[], None]:
        def end() -> None:
            worker = self._workers.get(worker_id, _Worker(0))
            if worker.running.get(request_id, (0, 0))[0] == attempt:
                del self._workers[worker_id].running[request_id]
                self._open.discard(request_id)
                self._report(worker_id)
                arrival = self.offered[request_id].arrival
                self._apply(
                    settled(request_id, output_tokens=arrival.n * self._tokens(arrival.runs_s))
                )

        return end

    def _beat(self, worker_id: str) -> None:
        if worker_id in self._workers:
            self._report(worker_id)
            self._apply(gateway_reported(received_s=self.now_s))
            self.at(self.now_s + BEAT_S, lambda: self._beat(worker_id))

    def _report(self, worker_id: str) -> None:
        worker = self._workers[worker_id]
        worker.number += 1
        taken = sum(n for _, n in worker.running.values())
        self._apply(
            reported(
                worker_id,
                worker.number,
                received_s=self.now_s,
                free=worker.slots - taken,
                total=worker.slots,
                running={i: attempt for i, (attempt, _) in worker.running.items()},
                counted=worker.counted,
                token_s=self._reported_token_s,
            )
        )


def poisson(
    rng: random.Random,
    *,
    per_s: float,
    for_s: float,
    runs_s: Callable[[], float],
    n: Callable[[], int] = lambda: 1,
    priority: str = "standard",
    tenant: str = "default",
    from_s: float = 0.0,
) -> list[Arrival]:
    """Requests that come independently of one another."""
    arrivals, at_s = [], from_s
    while (at_s := at_s + rng.expovariate(per_s)) < from_s + for_s:
        arrivals.append(Arrival(at_s, runs_s(), n(), priority, tenant))
    return arrivals


def relative_errors(offered: Iterable[OfferedRequest], *, beyond_s: float) -> list[float]:
    """Return the errors of the known estimates, where the true wait was at least so long."""
    return [
        abs(each.estimated_s - each.waited_s) / each.waited_s
        for each in offered
        if each.waited_s is not None and each.estimated_s is not None and each.waited_s >= beyond_s
    ]


def median_error(offered: Iterable[OfferedRequest], *, beyond_s: float) -> float:
    return statistics.median(relative_errors(offered, beyond_s=beyond_s))

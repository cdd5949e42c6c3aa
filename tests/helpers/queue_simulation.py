"""The scheduler's machine under a load, in simulated time: waits as told, and as they were."""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from headrace.bus.subjects import PRIORITIES
from headrace_scheduler.events import Dispatch, DispatchAnswered, Event
from headrace_scheduler.machine import Leadership, Machine
from headrace_scheduler.policy import Policy
from helpers.scheduler_events import (
    MODEL,
    CountingJournal,
    caught_up,
    gateway_reported,
    reported,
    settled,
    submitted,
)

BEAT_S = 0.5


@dataclass(frozen=True)
class Ask:
    """One request of a load."""

    at_s: float
    runs_s: float
    n: int = 1
    priority: str = "standard"


@dataclass
class Asked:
    ask: Ask
    ahead: int
    told_s: float | None
    """None: the wait was not known."""
    waited_s: float | None = None
    """None: it was never dispatched."""


@dataclass
class _Worker:
    slots: int
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Attempt and slots, by request."""
    number: int = 0
    counted: tuple[int, int] = (0, 0)


class Simulation:
    """Workers answer at once, report every end, and run each request for as long as it says."""

    def __init__(self, workers: Iterable[int], policy: Policy | None = None) -> None:
        self.now_s = 0.0
        leadership = Leadership("s", MODEL, 1, 0.0, listening_since_s=-10.0)
        quiet = policy or Policy(max_waiting=100_000)
        self.machine = Machine(leadership, quiet, CountingJournal())
        self.asked: dict[str, Asked] = {}
        self._offered, self._open = 0, set[str]()
        self._workers: dict[str, _Worker] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = iter(range(1_000_000_000))
        self._tell(*caught_up())
        for i, slots in enumerate(workers):
            self.join(f"w{i}", slots)

    def join(self, worker_id: str, slots: int) -> None:
        self._workers[worker_id] = _Worker(slots)
        self._beat(worker_id)

    def leave(self, worker_id: str) -> None:
        """It ends with what it runs; nothing of it is judged."""
        worker = self._workers.pop(worker_id)
        worker.number += 1
        self._tell(reported(worker_id, worker.number, heard_s=self.now_s, leaving=True))

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when_s, next(self._ids), act))

    def offer(self, asks: Iterable[Ask]) -> None:
        for ask in asks:
            self._offered += 1
            self.at(ask.at_s, lambda ask=ask: self._submit(ask))  # type: ignore[misc]

    def run(self, until_s: float = float("inf")) -> None:
        """Until then, or until all that came has ended."""
        while self._agenda and self._agenda[0][0] <= until_s and self._lives:
            self.now_s, _, act = heapq.heappop(self._agenda)
            act()

    @property
    def _lives(self) -> bool:
        return len(self.asked) < self._offered or bool(self._open)

    def _submit(self, ask: Ask) -> None:
        sequence = next(self._ids)
        request_id = f"r{sequence}"
        lanes = {f.priority: f for f in self.machine.lanes(now_s=self.now_s)}
        ahead = sum(lanes[p].waiting for p in PRIORITIES[: PRIORITIES.index(ask.priority) + 1])
        wait = lanes[ask.priority].wait
        self.asked[request_id] = Asked(ask, ahead, None if wait is None else wait.wait_s)
        self._open.add(request_id)
        self._tell(
            submitted(request_id, sequence, now_s=self.now_s, n=ask.n, priority=ask.priority)
        )

    def _tell(self, *events: Event) -> None:
        for event in events:
            self.machine.apply(event, now_s=self.now_s)
        for command in self.machine.decide(now_s=self.now_s):
            if isinstance(command, Dispatch):
                self._take(command)

    def _take(self, dispatch: Dispatch) -> None:
        worker = self._workers[dispatch.worker_id]
        for record in dispatch.message.requests:
            asked = self.asked[record.request_id]
            asked.waited_s = self.now_s - asked.ask.at_s
            worker.running[record.request_id] = record.attempt, record.n
            end = self._end_of(dispatch.worker_id, record.request_id)
            self.at(self.now_s + asked.ask.runs_s, end)
        worker.counted = dispatch.message.epoch, dispatch.number
        self._tell(DispatchAnswered(dispatch.worker_id, dispatch.number, ()))

    def _end_of(self, worker_id: str, request_id: str) -> Callable[[], None]:
        def end() -> None:
            if worker_id in self._workers:
                del self._workers[worker_id].running[request_id]
                self._open.discard(request_id)
                self._report(worker_id)
                self._tell(settled(request_id))

        return end

    def _beat(self, worker_id: str) -> None:
        if worker_id in self._workers:
            self._report(worker_id)
            self._tell(gateway_reported(heard_s=self.now_s))
            self.at(self.now_s + BEAT_S, lambda: self._beat(worker_id))

    def _report(self, worker_id: str) -> None:
        worker = self._workers[worker_id]
        worker.number += 1
        taken = sum(n for _, n in worker.running.values())
        self._tell(
            reported(
                worker_id,
                worker.number,
                heard_s=self.now_s,
                free=worker.slots - taken,
                total=worker.slots,
                running={i: attempt for i, (attempt, _) in worker.running.items()},
                counted=worker.counted,
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
    from_s: float = 0.0,
) -> list[Ask]:
    """Requests that come independently of one another."""
    asks, at_s = [], from_s
    while (at_s := at_s + rng.expovariate(per_s)) < from_s + for_s:
        asks.append(Ask(at_s, runs_s(), n(), priority))
    return asks


def relative_errors(asked: Iterable[Asked], *, beyond_s: float) -> list[float]:
    """Of the told waits that were known, where the true wait was at least so long."""
    return [
        abs(each.told_s - each.waited_s) / each.waited_s
        for each in asked
        if each.waited_s is not None and each.told_s is not None and each.waited_s >= beyond_s
    ]


def median_error(asked: Iterable[Asked], *, beyond_s: float) -> float:
    return statistics.median(relative_errors(asked, beyond_s=beyond_s))

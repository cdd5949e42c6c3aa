"""The workers of one model: who lives, and what room each has between its reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from headrace.internal.v1.reports_pb2 import ServedModel, WorkerReport
from headrace_scheduler.forming import Room
from headrace_scheduler.requests import DispatchNumber, Request


@dataclass(slots=True)
class Occupied:
    """What a dispatched request takes until a report counts it."""

    slots: int
    cache_tokens: int


@dataclass(slots=True, eq=False)
class Worker:
    """One worker as last reported, less what has been dispatched to it since."""

    worker_id: str
    name: str
    heard_s: float
    report_number: int
    served: ServedModel
    running: dict[str, int]
    """Attempt by request id, as reported."""
    draining: bool
    refusing: bool = False
    """It said that it has no room; believed until its next report."""
    unreported: dict[int, dict[str, Occupied]] = field(default_factory=dict)
    """Dispatches, by number, that its reports do not yet count."""
    unanswered: int | None = None
    """Number of the one dispatch on its way."""
    strays: dict[str, float] = field(default_factory=dict)
    """Requests it runs that nobody here knows, and since when."""

    @property
    def counted(self) -> DispatchNumber:
        """Last dispatch that the report counts."""
        return self.served.dispatch_epoch, self.served.dispatch_number

    @property
    def free_slots(self) -> int:
        taken = sum(o.slots for d in self.unreported.values() for o in d.values())
        return max(0, self.served.free_slots - taken)

    @property
    def free_cache_tokens(self) -> int:
        taken = sum(o.cache_tokens for d in self.unreported.values() for o in d.values())
        return max(0, self.served.free_cache_tokens - taken)

    @property
    def is_open(self) -> bool:
        """Whether it may be given anything at all."""
        return not self.draining and not self.refusing

    @property
    def room(self) -> Room:
        return Room(
            slots=self.free_slots,
            total_slots=self.served.total_slots,
            cache_tokens=self.free_cache_tokens,
            weights_digest=self.served.card.weights_digest,
            idle=not self.running and not self.unreported,
        )

    @property
    def load(self) -> float:
        return 1.0 - self.free_slots / max(1, self.served.total_slots)

    def vacate(self, number: int, request_ids: Iterable[str]) -> None:
        """A dispatch was answered; these of it did not stay."""
        if self.unanswered == number:
            self.unanswered = None
        dispatched = self.unreported.get(number, {})
        for request_id in request_ids:
            dispatched.pop(request_id, None)
        if not dispatched:
            self.unreported.pop(number, None)

    def forget(self, number: int) -> None:
        """A dispatch was not answered; the next report says what became of it."""
        self.vacate(number, list(self.unreported.get(number, {})))


class Fleet:
    """All live workers of one model, in one leadership."""

    def __init__(self, model: str, epoch: int) -> None:
        self._model, self._epoch = model, epoch
        self._workers: dict[str, Worker] = {}
        # Why one for all: a worker that was dropped and returns must not see a number twice.
        self._last_number = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, worker_id: str) -> Worker | None:
        return self._workers.get(worker_id)

    def hear(self, report: WorkerReport, *, now_s: float) -> Worker | None:
        """Take in a report that is not late; None if the worker does not serve this model."""
        known = self._workers.get(report.worker_id)
        served = next((m for m in report.models if m.card.model == self._model), None)
        if served is None:
            return None
        running = {r.request_id: r.attempt for r in served.running}
        if known is None:
            known = Worker(
                report.worker_id,
                report.name,
                now_s,
                report.number,
                served,
                running,
                report.draining,
            )
            self._workers[report.worker_id] = known
        known.heard_s, known.report_number = now_s, report.number
        known.served, known.running, known.draining = served, running, report.draining
        known.refusing = False
        self._forget_counted(known)
        return known

    def _forget_counted(self, worker: Worker) -> None:
        for number in list(worker.unreported):
            if worker.counted >= (self._epoch, number):
                del worker.unreported[number]
        worker.strays = {i: s for i, s in worker.strays.items() if i in worker.running}

    def occupy(self, worker: Worker, batch: Iterable[Request]) -> int:
        """Count a batch as there; returns the number of its dispatch."""
        self._last_number += 1
        worker.unanswered = self._last_number
        worker.unreported[self._last_number] = {
            r.request_id: Occupied(r.slots, r.cache_tokens) for r in batch
        }
        return self._last_number

    def remove(self, worker_id: str) -> Worker | None:
        return self._workers.pop(worker_id, None)

    def silent_since(self, heard_before_s: float) -> list[Worker]:
        return [w for w in self._workers.values() if w.heard_s < heard_before_s]

    def forgive_silence(self, now_s: float) -> None:
        """We could not hear: everybody's silence begins anew."""
        for worker in self._workers.values():
            worker.heard_s = now_s

    def with_room(self) -> list[Worker]:
        """Workers that a dispatch may go to now, the least loaded first."""
        able = (w for w in self._workers.values() if w.is_open and w.unanswered is None)
        return sorted((w for w in able if w.free_slots), key=lambda w: (w.load, w.worker_id))

    def free_slots(self, weights_digest: str = "") -> int:
        """Of all open workers with these weights."""
        return sum(
            w.free_slots
            for w in self._workers.values()
            if w.is_open and weights_digest in ("", w.served.card.weights_digest)
        )

    def fair_share(self, worker: Worker, waiting: int) -> int:
        """Of `waiting` requests, how many are this worker's; at least 1."""
        total = self.free_slots()
        return max(1, -(-waiting * worker.free_slots // total)) if total else 1

    def runs(self, request_id: str) -> tuple[Worker, int] | None:
        """Who reports to run a request, and which attempt; the newest of several."""
        found = [
            (w, w.running[request_id]) for w in self._workers.values() if request_id in w.running
        ]
        return max(found, key=lambda pair: pair[1], default=None)

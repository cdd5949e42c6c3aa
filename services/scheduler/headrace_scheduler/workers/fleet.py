"""The workers of one model: who lives, and what room each has between its reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from headrace.internal.v1.reports_pb2 import WorkerReport
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.workers.forming import Weights
from headrace_scheduler.workers.worker import RunningChanges, SlotTotals, Worker


class Fleet:
    """All live workers of one model, in one leadership."""

    def __init__(self, model: str, epoch: int) -> None:
        self._model, self._epoch = model, epoch
        self._workers: dict[str, Worker] = {}
        # Why one for all: a worker that was dropped and returns must not see a number twice.
        self._last_number = 0
        # What follows is kept rather than counted: it is asked for with every event.
        self._roomy: dict[str, Worker] = {}
        """Those that are open and have free slots."""
        self._with_strays: dict[str, Worker] = {}
        self._slot_totals: dict[str, SlotTotals] = {}
        """What each worker adds to the sums below."""
        self._free_slots: dict[str, int] = {}
        """Of open workers, by weights."""
        self._open_slots = 0
        """Their sum."""
        self._capacity = self._taken = self._leaving = self._parking = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, worker_id: str) -> Worker | None:
        return self._workers.get(worker_id)

    def apply_report(self, report: WorkerReport, *, now_s: float) -> RunningChanges | None:
        """Take in a report that is not late, and whose `since` has been heard.

        None if the worker does not serve this model.
        """
        served = next((m for m in report.models if m.card.model == self._model), None)
        if served is None:
            return None
        named = {r.request_id: r.attempt for r in served.running}
        worker = self._workers.get(report.worker_id)
        if worker is None:
            worker = Worker(report.worker_id, report.name)
            self._workers[report.worker_id] = worker
        worker.received_s, worker.report_number = now_s, report.number
        worker.draining, worker.refusing = report.draining, False
        worker.take(served)
        if report.since:
            worker.running.update(named)
            for request_id in served.ended:
                worker.running.pop(request_id, None)
        else:
            worker.running = dict(named)
        counted = self._forget_counted(worker)
        self._count(worker)
        if not report.since:
            return RunningChanges(worker, named, None)
        # What began and ended between two reports is named by neither.
        return RunningChanges(worker, named, {*counted, *served.ended} - worker.running.keys())

    def _forget_counted(self, worker: Worker) -> list[str]:
        """Returns what was dispatched and is counted by this report for the first time."""
        counted: list[str] = []
        for number in list(worker.unreported):
            if worker.counted >= (self._epoch, number):
                mark_answered = worker.unanswered
                counted += worker.unreported[number]
                worker.forget(number)
                worker.unanswered = mark_answered  # a report may come before the answer
        if worker.strays:
            worker.strays = {i: s for i, s in worker.strays.items() if i in worker.running}
            if not worker.strays:
                del self._with_strays[worker.worker_id]
        return counted

    def note_stray(self, worker: Worker, request_id: str, now_s: float) -> float:
        """It runs what nobody here knows; returns since when that is seen."""
        self._with_strays[worker.worker_id] = worker
        return worker.strays.setdefault(request_id, now_s)

    def occupy(self, worker: Worker, batch: Iterable[Request]) -> int:
        """Count a batch as there; returns the number of its dispatch."""
        self._last_number += 1
        worker.occupy(self._last_number, batch)
        self._count(worker)
        return self._last_number

    def mark_answered(self, worker: Worker, number: int, refused: Collection[str]) -> None:
        """A dispatch was answered; these of it did not stay."""
        worker.vacate(number, refused)
        if refused:
            self._count(worker)

    def mark_unanswered(self, worker: Worker, number: int) -> None:
        """A dispatch was not answered; the next report says what became of it."""
        worker.forget(number)
        self.mark_full(worker)

    def mark_full(self, worker: Worker) -> None:
        """It has no room, until its next report."""
        worker.refusing = True
        self._count(worker)

    def remove(self, worker_id: str) -> Worker | None:
        removed = self._workers.pop(worker_id, None)
        if removed is not None:
            self._roomy.pop(worker_id, None)
            self._with_strays.pop(worker_id, None)
            self._add(self._slot_totals.pop(worker_id), -1)
        return removed

    def _count(self, worker: Worker) -> None:
        slot_totals, worker_id = worker.slot_totals, worker.worker_id
        if slot_totals.open_slots:
            self._roomy[worker_id] = worker
        else:
            self._roomy.pop(worker_id, None)
        known = self._slot_totals.get(worker_id)
        if slot_totals != known:  # Most reports change nothing of it.
            if known is not None:
                self._add(known, -1)
            self._add(slot_totals, 1)
            self._slot_totals[worker_id] = slot_totals

    def _add(self, slot_totals: SlotTotals, times: int) -> None:
        self._capacity += times * slot_totals.capacity
        self._taken += times * slot_totals.taken
        self._leaving += times * slot_totals.leaving
        self._parking += times * slot_totals.parks
        if slot_totals.open_slots:
            free, digest = self._free_slots, slot_totals.weights_digest
            self._open_slots += times * slot_totals.open_slots
            free[digest] = free.get(digest, 0) + times * slot_totals.open_slots
            if not free[digest]:
                del free[digest]

    @property
    def capacity(self) -> int:
        """Slots, free or not, of all that do not drain."""
        return self._capacity

    def slots_in_use(self, *, is_wanted: bool) -> int:
        """Those that are taken, and with them, if they are wanted, those that could be."""
        return self._leaving + (self._capacity if is_wanted else self._taken)

    @property
    def token_s(self) -> float:
        """That a token takes lately, on average over the workers that report it; 0 if none does."""
        told = [worker.token_s for worker in self._workers.values() if worker.token_s > 0.0]
        return sum(told) / len(told) if told else 0.0

    def silent_since(self, received_before_s: float) -> list[Worker]:
        return [w for w in self._workers.values() if w.received_s < received_before_s]

    def restart_silence(self, now_s: float) -> None:
        """We could not hear: everybody's silence begins anew."""
        for worker in self._workers.values():
            worker.received_s = now_s

    def with_room(self) -> list[Worker]:
        """Workers that a dispatch may go to now, the least loaded first."""
        able = [worker for worker in self._roomy.values() if worker.unanswered is None]
        return sorted(able, key=lambda w: (w.load, w.worker_id))

    @property
    def roomy(self) -> Iterable[str]:
        """Ids of open workers with free slots, a dispatch on its way or not."""
        return self._roomy

    @property
    def load(self) -> float:
        """Of all that do not drain together, from 0 to 1."""
        return 1.0 - self._open_slots / self._capacity if self._capacity else 1.0

    @property
    def has_room(self) -> bool:
        """Whether a dispatch may go to anybody now."""
        return any(worker.unanswered is None for worker in self._roomy.values())

    def free_slots(self, request: Weights | None = None) -> int:
        """Of all open workers; of those with the weights for a request, if there is one."""
        if request is None or not request.weights_digest:
            return self._open_slots
        if not request.adapter_digest:
            return self._free_slots.get(request.weights_digest, 0)
        able = (w for w in self._workers.values() if w.is_open)
        return sum(w.free_slots for w in able if w.has_weights_for(request))

    @property
    def parks(self) -> bool:
        """Whether any worker does."""
        return self._parking > 0

    def has_weights_for(self, request: Weights) -> bool:
        """Whether any worker has, open or not."""
        return any(w.has_weights_for(request) for w in self._workers.values())

    def fair_share(self, worker: Worker, waiting: int) -> int:
        """Of `waiting` requests, how many are this worker's; at least 1."""
        total = self._open_slots
        return max(1, -(-waiting * worker.free_slots // total)) if total else 1

    def runs(self, request_id: str) -> tuple[Worker, int] | None:
        """Who reports to run a request that is known to nobody here, and which attempt; the
        newest of several."""
        found = [
            (w, w.running[request_id]) for w in self._with_strays.values() if request_id in w.strays
        ]
        return max(found, key=lambda pair: pair[1], default=None)

    def check_integrity(self) -> None:
        """Raise AssertionError if what is kept is not what there is."""
        for worker in self._workers.values():
            worker.check_integrity()
        opened = (w for w in self._workers.values() if w.is_open)
        assert set(self._roomy) == {w.worker_id for w in opened if w.free_slots}
        assert set(self._with_strays) == {w.worker_id for w in self._workers.values() if w.strays}
        assert self._slot_totals == {w.worker_id: w.slot_totals for w in self._workers.values()}
        kept = Fleet(self._model, self._epoch)
        for slot_totals in self._slot_totals.values():
            kept._add(slot_totals, 1)
        for name in ("_free_slots", "_open_slots", "_capacity", "_taken", "_leaving", "_parking"):
            assert getattr(self, name) == getattr(kept, name), name

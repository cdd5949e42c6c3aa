"""The live workers of one model, and the room that each has between its reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from headrace.internal.v1.reports_pb2 import WorkerReport
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.workers.worker import RunningChanges, SlotTotals, Worker


class Fleet:
    """All live workers of one model, during one leadership."""

    def __init__(self, model: str, epoch: int) -> None:
        self._model, self._epoch = model, epoch
        self._workers: dict[str, Worker] = {}
        # Why one for all: a worker that was removed and returns must not see a number twice.
        self._last_number = 0
        # Why kept rather than counted: all that follows is read with every event.
        self.with_free_slots: dict[str, Worker] = {}
        """Open workers with free slots, whether or not they may be dispatched to now."""
        self._with_strays: dict[str, Worker] = {}
        self._slot_totals: dict[str, SlotTotals] = {}
        """What each worker adds to the sums below."""
        self._free_slots: dict[str, int] = {}
        """Of open workers, by weights."""
        self._open_slots = 0
        """The sum of `_free_slots`."""
        self.capacity = 0
        """Slots, free or not, of all workers that do not drain."""
        self._taken = self._draining = self._parking = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, worker_id: str) -> Worker | None:
        return self._workers.get(worker_id)

    def apply_report(self, report: WorkerReport, *, now_s: float) -> RunningChanges | None:
        """Apply a report that is not late, and whose `since` has been received.

        Returns:
            What it says of running requests; None if the worker does not serve this model.
        """
        served = next((m for m in report.models if m.card.model == self._model), None)
        if served is None:
            return None
        reported = {r.request_id: r.attempt for r in served.running}
        worker = self._workers.get(report.worker_id)
        if worker is None:
            worker = Worker(report.worker_id, report.name)
            self._workers[report.worker_id] = worker
        worker.received_s = worker.reported_s = now_s
        worker.report_number = report.number
        worker.draining, worker.is_full = report.draining, False
        worker.apply_report(served)
        if report.since:
            worker.running.update(reported)
            for request_id in served.ended:
                worker.running.pop(request_id, None)
        else:
            worker.running = dict(reported)
        counted = self._forget_counted(worker)
        self._recount(worker)
        if not report.since:
            return RunningChanges(worker, reported, None)
        # Why counted: neither report names what began and ended between two of them.
        gone = {*counted, *served.ended} - worker.running.keys()
        return RunningChanges(worker, reported, gone)

    def _forget_counted(self, worker: Worker) -> list[str]:
        """Return the dispatched requests that the worker's report counts for the first time."""
        counted: list[str] = []
        for number in list(worker.unreported):
            if worker.counted >= (self._epoch, number):
                answered = worker.unanswered
                counted += worker.unreported[number]
                worker.forget(number)
                worker.unanswered = answered  # a report may come before the answer
        if worker.strays:
            worker.strays = {i: s for i, s in worker.strays.items() if i in worker.running}
            if not worker.strays:
                del self._with_strays[worker.worker_id]
        return counted

    def note_stray(self, worker: Worker, request_id: str, now_s: float) -> float:
        """Note that a worker runs an unknown request; return since when it does."""
        self._with_strays[worker.worker_id] = worker
        return worker.strays.setdefault(request_id, now_s)

    def occupy(self, worker: Worker, batch: Iterable[Request]) -> int:
        """Count a batch as running there; return the number of its dispatch."""
        self._last_number += 1
        worker.occupy(self._last_number, batch)
        self._recount(worker)
        return self._last_number

    def mark_answered(self, worker: Worker, number: int, refused: Collection[str]) -> None:
        """Record the answer to a dispatch, which refused these requests."""
        worker.vacate(number, refused)
        if refused:
            self._recount(worker)

    def close_dispatch(self, worker: Worker, number: int) -> None:
        """Await no answer to a dispatch any more, and count it no more: a report does, or will."""
        worker.timed_out = None
        worker.forget(number)
        self._recount(worker)

    def mark_full(self, worker: Worker) -> None:
        """Dispatch nothing to a worker before its next report: it is full, or may be dead."""
        worker.is_full = True
        self._recount(worker)

    def remove(self, worker_id: str) -> Worker | None:
        removed = self._workers.pop(worker_id, None)
        if removed is not None:
            self.with_free_slots.pop(worker_id, None)
            self._with_strays.pop(worker_id, None)
            self._add(self._slot_totals.pop(worker_id), -1)
        return removed

    def _recount(self, worker: Worker) -> None:
        totals, worker_id = worker.slot_totals, worker.worker_id
        if totals.open_slots:
            self.with_free_slots[worker_id] = worker
        else:
            self.with_free_slots.pop(worker_id, None)
        known = self._slot_totals.get(worker_id)
        if totals != known:  # Most reports change nothing of it.
            if known is not None:
                self._add(known, -1)
            self._add(totals, 1)
            self._slot_totals[worker_id] = totals

    def _add(self, totals: SlotTotals, times: int) -> None:
        self.capacity += times * totals.capacity
        self._taken += times * totals.taken
        self._draining += times * totals.draining
        self._parking += times * totals.parks
        if totals.open_slots:
            free, digest = self._free_slots, totals.weights_digest
            self._open_slots += times * totals.open_slots
            free[digest] = free.get(digest, 0) + times * totals.open_slots
            if not free[digest]:
                del free[digest]

    def slots_in_use(self, *, is_wanted: bool) -> int:
        """Return the taken slots; if requests wait, those that could be taken as well."""
        return self._draining + (self.capacity if is_wanted else self._taken)

    @property
    def token_s(self) -> float:
        """Recent time per output token, averaged over the workers that report it; 0 if unknown."""
        known = [worker.token_s for worker in self._workers.values() if worker.token_s > 0.0]
        return sum(known) / len(known) if known else 0.0

    def silent_since(self, received_before_s: float) -> list[Worker]:
        return [w for w in self._workers.values() if w.received_s < received_before_s]

    def restart_silence(self, now_s: float) -> None:
        """Let the silence of every worker begin now, because no report could be received."""
        for worker in self._workers.values():
            worker.received_s = now_s

    def with_room(self) -> list[Worker]:
        """Return the workers that may be dispatched to now, in no order."""
        return [w for w in self.with_free_slots.values() if w.unanswered is None]

    @property
    def load(self) -> float:
        """Share of taken slots of all workers that do not drain, from 0 to 1."""
        return 1.0 - self._open_slots / self.capacity if self.capacity else 1.0

    @property
    def has_room(self) -> bool:
        """Whether any worker may be dispatched to now."""
        return any(worker.unanswered is None for worker in self.with_free_slots.values())

    def free_slots(self, request: Request | None = None) -> int:
        """Return the free slots of open workers, or of those with the weights for a request."""
        if request is None or not request.weights_digest:
            return self._open_slots
        if not request.adapter_digest:
            return self._free_slots.get(request.weights_digest, 0)
        able = (w for w in self._workers.values() if w.is_open)
        return sum(w.free_slots for w in able if w.has_weights_for(request))

    @property
    def parks(self) -> bool:
        """Whether any worker can park requests."""
        return self._parking > 0

    def has_weights_for(self, request: Request) -> bool:
        """Return whether any worker, open or not, has the weights for a request."""
        return any(w.has_weights_for(request) for w in self._workers.values())

    def fair_share(self, worker: Worker, waiting: int) -> int:
        """Return how many of `waiting` requests are this worker's part; at least 1."""
        total = self._open_slots
        return max(1, -(-waiting * worker.free_slots // total)) if total else 1

    def find_stray(self, request_id: str) -> tuple[Worker, int] | None:
        """Return the worker that runs an unknown request, and which attempt: the newest one."""
        found = [
            (w, w.running[request_id]) for w in self._with_strays.values() if request_id in w.strays
        ]
        return max(found, key=lambda pair: pair[1], default=None)

    def check_integrity(self) -> None:
        """Raise AssertionError if what is kept differs from the workers."""
        for worker in self._workers.values():
            worker.check_integrity()
        opened = (w for w in self._workers.values() if w.is_open)
        assert set(self.with_free_slots) == {w.worker_id for w in opened if w.free_slots}
        assert set(self._with_strays) == {w.worker_id for w in self._workers.values() if w.strays}
        assert self._slot_totals == {w.worker_id: w.slot_totals for w in self._workers.values()}
        kept = Fleet(self._model, self._epoch)
        for totals in self._slot_totals.values():
            kept._add(totals, 1)
        for name in ("_free_slots", "_open_slots", "capacity", "_taken", "_draining", "_parking"):
            assert getattr(self, name) == getattr(kept, name), name

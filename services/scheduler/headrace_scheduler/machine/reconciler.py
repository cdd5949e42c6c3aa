"""Worker reports compared with what is believed to run; the reports win."""

from __future__ import annotations

from headrace.internal.v1.reports_pb2 import ParkCause, ParkRequest, ResumePoint, WorkerReport
from headrace_scheduler.machine.attempts import end_if_exhausted
from headrace_scheduler.request.live_request import (
    Ending,
    Held,
    Lost,
    Orphaned,
    Request,
    Running,
    Waiting,
)
from headrace_scheduler.state.events import CancelOnWorker, ParkOnWorker, StepDown
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.routing import Routing
from headrace_scheduler.workers.worker import RunningChanges, Worker

_OF_QUOTA = (ParkCause.PARK_CAUSE_QUOTA, ParkCause.PARK_CAUSE_QUOTA_GRANTED)
STRAY_GRACE_S = 30.0
"""How long a worker may run a request that was not read from its lane."""
SETTLED_STRAY_S = 1.0
"""The same of a settled request: longer than a report and a settlement may cross each other."""


class Reconciler:
    """Applies what workers, and gateways about workers, report of running requests."""

    def __init__(self, live: LiveRequests, fleet: Fleet, routing: Routing) -> None:
        self._live, self._fleet, self._routing = live, fleet, routing

    def on_report(self, report: WorkerReport, *, received_s: float, now_s: float) -> bool:
        """Apply a worker's report; return False if it is ignored."""
        known = self._fleet.get(report.worker_id)
        if known is not None and report.number <= known.report_number:
            self._live.observer.ignored("late report")
            return False
        if report.since > (known.report_number if known is not None else 0):
            # What it leaves out is not known; a report that leaves out nothing comes in time.
            self._live.observer.ignored("report with a gap")
            return False
        changes = None if report.leaving else self._fleet.apply_report(report, now_s=received_s)
        if changes is None:
            self.drop_worker(report.worker_id, is_failure=False, now_s=now_s)
            return True
        worker = changes.worker
        if worker.counted[0] > self._live.epoch:
            self._live.command(
                StepDown(f"{worker.worker_id} was dispatched to by epoch {worker.counted[0]}")
            )
            return False
        self._compare(changes, now_s)
        return True

    def _compare(self, changes: RunningChanges, now_s: float) -> None:
        worker = changes.worker
        believed = self._live.on_worker(worker.worker_id)
        for request_id, attempt in changes.running.items():
            # Nearly all are where they are believed to be.
            request = believed.get(request_id)
            state = request.state if request is not None else None
            if isinstance(state, Running) and state.attempt == attempt:
                state.vanished_s = None
            else:
                self._on_running(worker, request_id, attempt, now_s)
        gone = believed.keys() - changes.running.keys() if changes.gone is None else changes.gone
        for request_id in sorted(gone):
            if (request := believed.get(request_id)) is not None:
                self._on_missing(worker, request, now_s)

    def drop_worker(self, worker_id: str, *, is_failure: bool, now_s: float) -> None:
        """Remove a worker; all that ran there is lost."""
        if self._fleet.remove(worker_id) is None:
            return
        self._routing.forget(worker_id)
        running = list(self._live.on_worker(worker_id).values())
        self._live.observer.worker_lost(worker_id, len(running))
        for orphan in self._live.orphans():
            if isinstance(orphan.state, Orphaned) and orphan.state.worker_id == worker_id:
                orphan.state.worker_id = None
        for request in running:
            if is_failure:
                request.count_failure(f"worker {worker_id} fell silent")
            self._live.lose(request, "worker gone", now_s=now_s)

    def _on_running(self, worker: Worker, request_id: str, attempt: int, now_s: float) -> None:
        """Apply that a worker runs an attempt that is not believed to run there."""
        request = self._live.get(request_id)
        if request is None:
            self._on_stray(worker, request_id, attempt, now_s)
            return
        match request.state:
            case Held():
                self.adopt(request, worker, attempt)
            case Waiting() | Running() if attempt > request.record.attempt:
                self._live.adopt(request, worker, attempt)
            case Waiting() | Running() | Ending():
                self._live.command(CancelOnWorker(worker.worker_id, request_id, attempt))
            case Orphaned() as orphaned:
                # Why again: the first request to park it may have been lost.
                orphaned.worker_id = worker.worker_id
                self._live.command(
                    ParkOnWorker(worker.worker_id, request_id, attempt, orphaned=True)
                )
            case Lost() as lost:
                # Why not cancelled before the gateway has fenced: the gateway would take the
                # end of the cancelled attempt for the request's.
                lost.worker_id = worker.worker_id

    def adopt(self, request: Request, worker: Worker, attempt: int) -> bool:
        """Take a request for running where it is reported, if its gateway accepts that attempt.

        A gateway that has taken it over accepts none of before; what runs of them is parked.
        """
        if attempt < request.record.held_since_attempt:
            # Why not cancelled: its former gateway, if that lives, would relay that as its end.
            self._live.command(
                ParkOnWorker(worker.worker_id, request.request_id, attempt, orphaned=True)
            )
            return False
        self._live.adopt(request, worker, attempt)
        return True

    def _on_missing(self, worker: Worker, request: Request, now_s: float) -> None:
        """Apply that a worker does not run what is believed to run there."""
        running = request.state
        assert isinstance(running, Running)
        if worker.counted >= running.dispatch and running.vanished_s is None:
            self._live.vanish(request, running, now_s=now_s)

    def _on_stray(self, worker: Worker, request_id: str, attempt: int, now_s: float) -> None:
        """Cancel an unknown request, unless it was settled just now or may still be read."""
        since_s = self._fleet.note_stray(worker, request_id, now_s)
        was_settled = request_id in self._live.settled
        grace_s = SETTLED_STRAY_S if was_settled else STRAY_GRACE_S
        if now_s - since_s >= grace_s:
            worker.strays[request_id] = now_s
            self._live.command(CancelOnWorker(worker.worker_id, request_id, attempt))

    def on_parked(self, parked: ParkRequest, *, now_s: float) -> None:
        for point in parked.points:
            request = self._live.get(point.request_id)
            if request is not None and isinstance(request.state, Orphaned):
                continue  # `Orphans` has applied it.
            if request is None or not _is_of(point, request, parked.worker_id):
                self._live.observer.ignored("stale point")
            else:
                self._park(request, point, now_s=now_s)

    def _park(self, request: Request, point: ResumePoint, *, now_s: float) -> None:
        request.merge_progress(point.progress)
        if point.HasField("error"):
            request.count_failure(point.error.message)
        if not end_if_exhausted(self._live, request, now_s=now_s):
            cause = "preempted" if request.parked_for else "parked"
            cause = "failed" if point.HasField("error") else cause
            self._live.lose(request, cause, now_s=now_s)

    def on_stream_lost(self, worker_id: str, points: list[ResumePoint], *, now_s: float) -> None:
        """Apply that a gateway's stream from a worker broke; the worker itself may live.

        Why nothing is dispatched to it before its next report: requests that were lost with a dead
        worker would fail there a second time.
        """
        worker = self._fleet.get(worker_id)
        if worker is not None and any(point.cause not in _OF_QUOTA for point in points):
            self._fleet.mark_full(worker)
        for point in points:
            request = self._live.get(point.request_id)
            if point.cause == ParkCause.PARK_CAUSE_QUOTA_GRANTED:
                self._on_granted(request, now_s)
            elif request is None or not _is_of(point, request, worker_id):
                self._live.observer.ignored("stale point")
            else:
                self._lose(request, point, worker_id, now_s)

    def _lose(self, request: Request, point: ResumePoint, worker_id: str, now_s: float) -> None:
        """Apply that its gateway accepts nothing more of its attempt on this worker."""
        request.merge_progress(point.progress)
        if point.cause == ParkCause.PARK_CAUSE_QUOTA:
            self._live.lose(request, "quota", now_s=now_s, worker_id=worker_id)
            return
        request.count_failure(point.error.message or f"its gateway lost worker {worker_id}")
        self._live.lose(request, "lost", now_s=now_s, worker_id=worker_id)

    def _on_granted(self, request: Request | None, now_s: float) -> None:
        """Have its gateway asked now: that answer returns it to its lane."""
        if request is not None and isinstance(request.state, Lost):
            request.state.notice_due_s = min(request.state.notice_due_s, now_s)


def _is_of(point: ResumePoint, request: Request, worker_id: str) -> bool:
    """Return whether a worker's attempt is the one that is believed to run."""
    match request.state:
        case Running(worker_id=found, attempt=attempt):
            return found == worker_id and attempt == point.attempt
    return False
